"""Gates open where they should: alone, in batches, with and without a cache, with beams."""

import itertools
import random

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from real_tasks.evaluation.gating import gate_input
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.gates import GATES, FittedGate, GateInput
from real_tasks.steering.gates.deciding import best_threshold
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, BehaviourData, ModuleId, Question
from tests.unit.tiny_models import WORDS, tiny_loaded

PROMPTS = [[1, 9, 12, 30, 41], [1, 20, 33], [1, 50, 51, 52, 9, 9, 10, 11]]
ONE = torch.ones(1)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def two_kinds(layer: int = 2, shift: float = 6.0) -> GateInput:
    """Prompts of two kinds that differ in one direction at one layer of four."""
    opening, closing = drawn(40, 4, 16), drawn(30, 4, 16, seed=1)
    opening[:, layer, 3] += shift
    return GateInput(opening, closing, (0, 1, 2, 3))


def test_the_layer_and_the_direction_that_tell_prompts_apart_are_found() -> None:
    gate, tensors = GATES.made("prompt_similarity", {}).fit(two_kinds())
    assert gate.reads == (ModuleId("residual_in", 2),)
    assert float(tensors["direction"][3]) > 0.95
    unseen = two_kinds()
    for values, open_ in ((unseen.opening, True), (unseen.closing, False)):
        along = values[:, 2] @ tensors["direction"]
        assert bool(((along > tensors["threshold"]) == open_).all())


def test_a_gate_does_not_read_behind_its_edit() -> None:
    data = two_kinds()
    early = GateInput(data.opening, data.closing, (0, 1))
    gate, _ = GATES.made("prompt_similarity", {}).fit(early)
    assert gate.params.layer in (0, 1)


@pytest.mark.parametrize(
    ("name", "params"), [("prompt_similarity", {"layer": 2}), ("controller", {"layers": [0, 9]})]
)
def test_a_layer_that_a_gate_may_not_read_is_refused(name: str, params: dict) -> None:
    data = two_kinds()
    early = GateInput(data.opening, data.closing, (0, 1))
    with pytest.raises(UserInputError, match=r"input of layer (2|9).*acts in layer 1.*earlier"):
        GATES.made(name, params).fit(early)


def test_the_threshold_has_the_largest_f1_of_all() -> None:
    for seed in range(20):
        opening, closing = drawn(9, seed=seed) + 0.7, drawn(7, seed=seed + 100)
        threshold, f1 = best_threshold(opening, closing)
        values = torch.cat([opening, closing]).numpy()
        labels = np.array([1] * 9 + [0] * 7)
        cuts = [values.min() - 1, *((a + b) / 2 for a, b in itertools.pairwise(sorted(values)))]
        best = max(f1_score(labels, values > cut) for cut in cuts)
        assert f1 == pytest.approx(best)
        assert f1_score(labels, values > float(threshold)) == pytest.approx(best)


def test_values_that_are_equal_are_not_parted() -> None:
    threshold, f1 = best_threshold(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert float(threshold) == 0.5 and f1 == pytest.approx(0.8)


def steering(gate: FittedGate, layer: int = 1) -> Intervention:
    push = torch.nn.functional.normalize(drawn(1, 32, seed=5), dim=-1)
    tensors = {"direction": 8 * push, "scale": ONE}
    return Intervention((Edit((ModuleId("layer", layer),), tensors, ONE, gate=gate),))


def opened_by(prompts: list[list[int]]) -> FittedGate:
    """A gate of prompts, with a threshold between their own coordinates and the others'."""
    loaded = tiny_loaded()
    means = []
    with torch.no_grad():
        for prompt in PROMPTS:
            states = loaded.model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
            means.append(states[1][0, 1:].mean(0))
    direction = torch.nn.functional.normalize(
        torch.stack([m for m, p in zip(means, PROMPTS, strict=True) if p in prompts]).mean(0)
        - torch.stack([m for m, p in zip(means, PROMPTS, strict=True) if p not in prompts]).mean(0),
        dim=-1,
    )
    along = [float(mean @ direction) for mean in means]
    low = max(a for a, p in zip(along, PROMPTS, strict=True) if p not in prompts)
    high = min(a for a, p in zip(along, PROMPTS, strict=True) if p in prompts)
    assert low < high
    gate = GATES.made("prompt_similarity", {"layer": 1})
    return FittedGate(gate, {"direction": direction, "threshold": torch.tensor((low + high) / 2)})


@torch.no_grad()
def test_a_gate_tells_prompts_by_what_they_say_not_by_how_long_they_are() -> None:
    """The token that begins every text is a hundred times as large as others, as in real models."""
    loaded = tiny_loaded()
    loaded.model.get_input_embeddings().weight[1] *= 100
    draw = random.Random(3)

    def text(words: tuple[str, ...], n: int) -> str:
        return " ".join(draw.choices(words, k=n))

    def questions(n: int) -> list[Question]:
        answers = (Answer("a", "w59", 1, is_best=True), Answer("b", "w58", 0))
        return [Question(str(i), text(WORDS[:8], n), "", answers) for i in range(12)]

    neutral = tuple(text(WORDS[20:50], 40) for _ in range(24))
    data = BehaviourData("any", tuple(questions(4)), neutral)
    given = gate_input(loaded, data, range(12), 1000, PlugIn(name="prompt_similarity"))
    fitted = FittedGate(*GATES.made("prompt_similarity", {"layer": 0}).fit(given))

    def opened(said: str) -> bool:
        ids = loaded.tokenizer(said, return_tensors="pt")["input_ids"]
        bare = loaded.model(ids).logits
        with applied(loaded, steering(fitted)):
            return not torch.equal(loaded.model(ids).logits, bare)

    assert all(opened(data.prompt_context(one)) for one in questions(40))
    assert not any(opened(text(WORDS[20:50], 10)) for _ in range(12))


def padded(rows: list[list[int]]) -> dict[str, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
@pytest.mark.parametrize("how", [{"use_cache": True}, {"use_cache": False}, {"num_beams": 3}])
def test_only_prompts_that_open_it_are_steered_whatever_they_are_batched_with(how: dict) -> None:
    loaded = tiny_loaded()
    iv = steering(opened_by([PROMPTS[1]]))
    always = Intervention((Edit(iv.edits[0].modules, iv.edits[0].tensors, ONE),))

    def texts(rows: list[list[int]]) -> list[list[int]]:
        made = loaded.model.generate(
            **padded(rows), max_new_tokens=6, min_new_tokens=6, do_sample=False, **how
        )
        return made[:, -6:].tolist()

    bare = texts(PROMPTS)
    with applied(loaded, always):
        steered = texts(PROMPTS)
    with applied(loaded, iv):
        together = texts(PROMPTS)
        alone = [texts([prompt])[0] for prompt in PROMPTS]
    assert steered[1] != bare[1]
    assert together == alone == [bare[0], steered[1], bare[2]]


def behind_layer_1(loaded: LoadedModel, ids: Tensor) -> Tensor:
    found: list[Tensor] = []
    following = loaded.model.model.layers[2]
    handle = following.register_forward_pre_hook(lambda _, args: found.append(args[0][0].clone()))
    loaded.model(ids)
    handle.remove()
    return found[0]


@torch.no_grad()
def test_a_closed_gate_changes_no_bit() -> None:
    loaded = tiny_loaded()
    ids = torch.tensor([PROMPTS[2]])
    bare = loaded.model(ids).logits
    with applied(loaded, steering(opened_by([PROMPTS[1]]))):
        assert torch.equal(loaded.model(ids).logits, bare)


@torch.no_grad()
def test_prompts_of_the_behaviour_can_be_what_closes_it() -> None:
    loaded = tiny_loaded()
    opened = opened_by([PROMPTS[1]])
    gate = GATES.made("prompt_similarity", {"layer": 1, "opens": "below"})
    iv = steering(FittedGate(gate, opened.tensors))
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        bare = loaded.model(ids).logits
        with applied(loaded, iv):
            assert torch.equal(loaded.model(ids).logits, bare) == (prompt == PROMPTS[1])


@torch.no_grad()
@pytest.mark.parametrize("opens", ["below", "above"])
def test_a_coordinate_gate_lets_alone_the_tokens_on_the_other_side_bit_for_bit(opens: str) -> None:
    loaded = tiny_loaded()
    ids, v = torch.tensor([PROMPTS[2]]), torch.nn.functional.normalize(drawn(32), dim=-1)
    before = behind_layer_1(loaded, ids)
    along = before @ v
    threshold = along.median()
    site = ModuleId("layer", 1)
    gate = GATES.made("coordinate", {"opens": opens}).placed(site)
    fitted = FittedGate(gate, {"direction": v, "threshold": threshold})
    with applied(loaded, steering(fitted)):
        after = behind_layer_1(loaded, ids)
    moved = along < threshold if opens == "below" else along > threshold
    assert 0 < int(moved.sum()) < len(moved)
    assert torch.equal(after[~moved], before[~moved])
    assert bool(((after - before)[moved].norm(dim=-1) > 7).all())


@torch.no_grad()
def test_a_coordinate_gate_reads_the_part_that_it_is_told_to() -> None:
    loaded = tiny_loaded()
    ids, v = torch.tensor([PROMPTS[2]]), torch.nn.functional.normalize(drawn(32), dim=-1)
    embedded, before = loaded.model.get_input_embeddings()(ids)[0] @ v, behind_layer_1(loaded, ids)
    gate = GATES.made("coordinate", {"kind": "residual_in", "layer": 0})
    tensors = {"direction": v, "threshold": embedded.median()}
    with applied(loaded, steering(FittedGate(gate.placed(ModuleId("layer", 1)), tensors))):
        moved = (behind_layer_1(loaded, ids) - before).norm(dim=-1) > 1
    assert moved.tolist() == (embedded < embedded.median()).tolist()
    heads = GATES.made("coordinate", {"kind": "head", "layer": 0, "head": 1})
    with (
        pytest.raises(UserInputError, match="layer 0, head 1, of width 12, along a direction of"),
        applied(loaded, steering(FittedGate(heads, tensors))),
    ):
        pass


@torch.no_grad()
def test_a_gate_at_tokens_is_open_where_they_stand() -> None:
    loaded = tiny_loaded()
    ids = torch.tensor([PROMPTS[2]])
    before = behind_layer_1(loaded, ids)
    with applied(loaded, steering(FittedGate(GATES.made("tokens", {"ids": [9, 52]})))):
        after = behind_layer_1(loaded, ids)
    moved = (after - before).norm(dim=-1) > 1
    assert moved.tolist() == [token in (9, 52) for token in PROMPTS[2]]
