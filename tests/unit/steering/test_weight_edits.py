"""ThinkEdit and Steer2Edit: heads and neurons found and edited by what they themselves write."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.experiment.candidates import SpecTemplate, candidate_selections
from real_tasks.experiment.methods.known import known_methods
from real_tasks.export.bake import bake
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import LocalizerInput, ModuleId, ModuleKind
from tests.unit.tiny_models import tiny_loaded

N, D_MODEL = 60, 32
LABELS = torch.arange(N) % 2
QUESTIONS = torch.arange(N) // 2
IDS = torch.tensor([[1, 9, 12, 30, 41, 7]])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


V = torch.nn.functional.normalize(drawn(D_MODEL, seed=9), dim=0)
STREAM = 0.1 * drawn(N, D_MODEL, seed=1) + 4 * LABELS[:, None] * V
"""What is beside: the classes differ along V, and little else does."""


@dataclass
class Weights:
    """A model of one layer, as fitters ask it for weights."""

    whole: Tensor
    width: int

    def weight(self, site: ModuleId) -> Tensor:
        if site.kind in ("attention", "mlp"):
            return self.whole
        return self.whole[:, site.head * self.width : (site.head + 1) * self.width]

    def gain(self, site: ModuleId) -> Tensor:  # noqa: ARG002
        return torch.ones(D_MODEL)


def seen(kind: ModuleKind, values: Tensor, whole: Tensor) -> FitterInput:
    modules = tuple(ModuleId(kind, 0, unit) for unit in range(len(values)))
    model = cast(Any, Weights(whole, values.shape[-1]))
    return FitterInput(modules, values, LABELS, QUESTIONS, model=model, beside=STREAM[None])


def planted() -> tuple[Tensor, Tensor]:
    """Activations of five heads of 8 and their columns: head 3 writes along V for the aligned.

    Head 1 writes more than that, and against V, for both alike.
    """
    values, whole = 0.1 * drawn(5, N, 8, seed=2), 0.1 * drawn(D_MODEL, 40, seed=3)
    for head in (1, 3):
        values[head, :, 0] += -5.0 if head == 1 else 3.0 * LABELS
        whole[:, head * 8] += V
    return values, whole


def loop_direction() -> list[float]:
    means = [
        [
            math.fsum(STREAM[i, j].item() for i in range(N) if LABELS[i] == k) / (N // 2)
            for k in (0, 1)
        ]
        for j in range(D_MODEL)
    ]
    difference = [one - zero for zero, one in means]
    length = math.sqrt(math.fsum(x * x for x in difference))
    return [x / length for x in difference]


def scores(values: Tensor, whole: Tensor, **params: str) -> list[float]:
    data = seen("head", values, whole)
    given = LocalizerInput(
        data.modules,
        values,
        LABELS,
        QUESTIONS,
        torch.ones(N, dtype=torch.bool),
        weight=Weights(whole, 8).weight,
        beside=STREAM,
    )
    made = LOCALIZERS.made("direct_write", params)
    return [score.score for score in made.localize(given, 0).scores]


def test_the_head_that_writes_along_the_direction_for_one_class_comes_first() -> None:
    found = scores(*planted())
    assert max(range(5), key=found.__getitem__) == 3
    assert found[3] > 20 * max(abs(score) for head, score in enumerate(found) if head != 3)


@pytest.mark.parametrize("samples", ["difference", "violating"])
def test_scores_are_those_of_a_plain_loop(samples: str) -> None:
    values, whole = planted()
    v, found = loop_direction(), scores(values, whole, samples=samples)
    for head in range(5):
        total = {0: 0.0, 1: 0.0}
        for i in range(N):
            for row in range(D_MODEL):
                written = math.fsum(
                    whole[row, head * 8 + j].item() * values[head, i, j].item() for j in range(8)
                )
                total[int(LABELS[i])] += v[row] * written / (N // 2)
        expected = -total[0] if samples == "violating" else total[1] - total[0]
        assert found[head] == pytest.approx(expected, abs=1e-4)
    if samples == "violating":  # the paper's score takes the head that writes so for both
        assert max(range(5), key=found.__getitem__) == 1


def test_training_answers_alone_decide() -> None:
    values, whole = planted()
    train = QUESTIONS < 20
    other = values.clone()
    other[:, ~train] = 1e3
    given = LocalizerInput(
        seen("head", values, whole).modules,
        values,
        LABELS,
        QUESTIONS,
        train,
        weight=Weights(whole, 8).weight,
        beside=STREAM,
    )
    made = LOCALIZERS.made("direct_write", {})
    turned = replace(given, values=other, beside=STREAM * torch.where(train, 1, 99)[:, None])
    assert made.localize(turned, 0).scores == made.localize(given, 0).scores


@torch.no_grad()
def test_after_thinkedit_a_head_writes_nothing_along_the_direction_and_the_others_keep_their_bytes(
    tmp_path: Path,
) -> None:
    loaded = tiny_loaded()
    heads = tuple(ModuleId("head", 1, head) for head in range(8))
    model = ModelHandle(loaded, 100)
    data = FitterInput(heads, drawn(8, N, 12), LABELS, QUESTIONS, model=model, beside=STREAM[None])
    tensors = FITTERS.made("direct_write", {}).fit(data, 0)
    operator = OPERATORS.made("remove_write", {})
    edit = Edit(heads, tensors, torch.ones(8), operator).only([2, 6])
    found = baked(loaded, edit, tmp_path)
    v = torch.tensor(loop_direction())
    for head in range(8):
        own, before = (
            w[:, head * 12 : (head + 1) * 12]
            for w in (found, loaded.model.model.layers[1].self_attn.o_proj.weight)
        )
        if head in (2, 6):
            assert (v @ own).norm() < 1e-6 < (v @ before).norm()
            torch.testing.assert_close(own, before - torch.outer(v, v @ before), atol=1e-6, rtol=0)
        else:
            assert torch.equal(own.view(torch.int32), before.contiguous().view(torch.int32))


def baked(loaded: LoadedModel, edit: Edit, folder: Path) -> Tensor:
    """The weight of layer 1's o_proj in a checkpoint whose logits are those under the hooks."""
    steering = Intervention((edit,), 1.0)
    loaded.tokenizer.save_pretrained(folder / "source")
    (folder / "made").mkdir()
    bake(loaded, steering, folder / "source", folder / "made")
    back = AutoModelForCausalLM.from_pretrained(folder / "made").eval()
    with applied(loaded, steering):
        hooked = loaded.model(IDS).logits
    torch.testing.assert_close(back(IDS).logits, hooked, atol=1e-5, rtol=1e-5)
    assert (hooked - loaded.model(IDS).logits).abs().max() > 1e-2
    return load_file(folder / "made/model.safetensors")["model.layers.1.self_attn.o_proj.weight"]


def neurons() -> tuple[Tensor, Tensor]:
    """Activations of 20 neurons and their columns; 4 and 7 lie along V, 7 is mostly negative."""
    values, whole = drawn(20, N, 1, seed=4) + 1, drawn(D_MODEL, 20, seed=5)
    values[7] -= 3
    whole[:, [4, 7]] = 5 * V[:, None] + 0.1 * drawn(D_MODEL, 2, seed=6)
    return values, whole


CASES: dict[ModuleKind, tuple[Tensor, Tensor]] = {"head": planted(), "neuron": neurons()}


def steer2edit(kind: ModuleKind, **params: float) -> Mapping[str, Tensor]:
    return FITTERS.made("steer2edit", params).fit(seen(kind, *CASES[kind]), 0)


@pytest.mark.parametrize("kind", ["head", "neuron"])
@pytest.mark.parametrize(("rho", "alpha"), [(0.4, 0.7), (0.25, 0.0)])
def test_steer2edit_is_a_plain_loop(kind: ModuleKind, rho: float, alpha: float) -> None:
    values, whole = CASES[kind]
    tensors, v = steer2edit(kind, rho=rho, alpha=alpha), loop_direction()
    d, edited = values.shape[-1], 0
    for unit in range(len(values)):
        columns = [whole[:, unit * d + j].tolist() for j in range(d)]
        means = [
            sum(math.fsum(values[unit, k == LABELS, j].tolist()) / (N // 2) for k in (0, 1)) / 2
            for j in range(d)
        ]
        write = [math.fsum(columns[j][o] * means[j] for j in range(d)) for o in range(D_MODEL)]
        g = math.fsum(p * q for p, q in zip(v, write, strict=True)) / math.hypot(*write)
        read = [math.fsum(p * q for p, q in zip(v, column, strict=True)) for column in columns]
        size = math.copysign(max(abs(g) - rho * alpha, 0) / (rho * (1 - alpha)), g)
        expected = [size * r / math.hypot(*read) for r in read]
        assert tensors["read"][unit].tolist() == pytest.approx(expected, abs=1e-4)
        assert tensors["write"][0].tolist() == pytest.approx(v, abs=1e-5)
        gained = math.fsum(r * m for r, m in zip(expected, means, strict=True))
        assert gained >= 0  # what it writes on average moves towards v, whatever the sign of g
        edited += size != 0
        if alpha == 0:
            assert size == pytest.approx(g / rho)
    assert edited == len(values) if alpha == 0 else 0 < edited < len(values)


def test_a_neuron_that_is_turned_round_gets_the_opposite_edit() -> None:
    values, whole = neurons()
    made = FITTERS.made("steer2edit", {"rho": 0.55})
    before = made.fit(seen("neuron", values, whole), 0)["read"]
    values[4] *= -1
    after = made.fit(seen("neuron", values, whole), 0)["read"]
    assert before[4] > 0 > before[7]
    torch.testing.assert_close(after[4], -before[4])


@pytest.mark.parametrize(("rho", "n_edited"), [(0.3, 2), (2.0, 0)])
def test_heads_below_the_threshold_are_in_no_edit_and_a_threshold_above_all_changes_no_byte(
    rho: float, n_edited: int, tmp_path: Path
) -> None:
    loaded = tiny_loaded()
    fitted = steer2edit("head", rho=rho, alpha=0.8)
    method = known_methods(ExperimentConfig())["steer2edit"]
    assert sorted(fitted["read"].norm(dim=1).nonzero().flatten().tolist()) == [1, 3][:n_edited]
    tensors = {  # as of the tiny model: three layers of eight heads of 12
        "read": torch.nn.functional.pad(fitted["read"], (0, 4, 0, 3)).repeat(3, 1, 1),
        "write": fitted["write"].repeat(3, 1, 1),
    }
    template = SpecTemplate(method, "tiny", "", "", loaded.shape, tensors, {})
    (chosen,) = candidate_selections(method, None, loaded.shape).values()
    spec = template.spec(chosen, 1.0)
    assert len(chosen) == 24 and len(spec.modules) == (3 * n_edited or 1)
    (tmp_path / "source").mkdir()
    loaded.tokenizer.save_pretrained(tmp_path / "source")
    (tmp_path / "made").mkdir()
    made = bake(loaded, spec.intervention(), tmp_path / "source", tmp_path / "made")
    assert len(made.weights) == (3 if n_edited else 0) and not made.biases
    found = load_file(tmp_path / "made/model.safetensors")
    kept = loaded.model.state_dict()
    assert n_edited or all(torch.equal(found[name], kept[name]) for name in found)


def test_a_part_that_a_fitter_does_not_know_what_to_see_beside_is_refused() -> None:
    config = ExperimentConfig.model_validate(
        {"methods": [{"name": "mine", "like": "thinkedit", "part": "neuron"}]}
    )
    with pytest.raises(UserInputError, match="'direct_write' is for modules of the kinds head"):
        known_methods(config)
