"""The controller: trained on planted clusters, and at work in a tiny model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from real_tasks.steering import SteeringSpec
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.gates import GATES, FittedGate, GateInput, Seen
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.types import ModuleId
from tests.unit.steering.test_gates import PROMPTS, drawn, padded
from tests.unit.tiny_models import tiny_loaded

N_LAYERS, WIDTH = 5, 16
PLANTED = 2


def two_clusters(n: int, seed: int = 0, shift: float = 6.0) -> GateInput:
    """Texts of two kinds that differ in one direction at one layer."""
    opening, closing = (drawn(n, N_LAYERS, WIDTH, seed=seed + kind) for kind in (0, 1))
    opening[:, PLANTED, 3] += shift
    return GateInput(opening, closing, tuple(range(N_LAYERS)))


def strengths(values: Tensor, gate: Any, tensors: dict[str, Tensor], **changes: Any) -> Tensor:
    """What the gate says of texts, `[text, layer]`; their last token stands before padding."""
    padding = torch.full_like(values[:, :, None], 50.0)
    seen = Seen(
        None,
        torch.tensor([False, True, False]).expand(len(values), -1),
        {s: torch.cat([padding, values[:, :, None], padding], 2)[:, s.layer] for s in gate.reads},
    )
    changed = type(gate)(gate.params.model_copy(update=changes))
    return changed.strength(seen, tensors)[:, 0]


@pytest.fixture(scope="module")
def trained() -> tuple[Any, dict[str, Tensor]]:
    return GATES.made("controller", {}).fit(two_clusters(100))


def test_clusters_that_it_was_not_trained_on_are_told_apart(trained: Any) -> None:
    held_out = two_clusters(200, seed=10)
    opened = strengths(held_out.opening, *trained, dose="logit")
    closed = strengths(held_out.closing, *trained, dose="logit")
    odds = torch.cat([opened, closed])[:, 0]
    assert roc_auc_score([1] * 200 + [0] * 200, odds) > 0.99
    assert min(float((opened > 0).float().mean()), float((closed < 0).float().mean())) > 0.9
    dosed = [strengths(v, *trained).mean() for v in (held_out.opening, held_out.closing)]
    assert dosed[0] > 5 * dosed[1]


def test_no_label_reaches_the_weights_of_layers(trained: Any) -> None:
    held_out = two_clusters(200, seed=10)
    for values in (held_out.opening, held_out.closing):
        gate, tensors = trained
        only = {**tensors, "out_bias": tensors["out_bias"].clone()}
        only["out_weight"] = tensors["out_weight"].clone()
        only["out_weight"][0], only["out_bias"][0] = 0, 1  # so that the number is 1 everywhere
        shares = strengths(values, gate, only, dose="logit")
        assert float((shares - 0.5).abs().mean()) < 0.05
        assert float((shares.mean(0) - 0.5).abs().max()) < 0.07


def test_training_is_that_of_a_plain_loop() -> None:
    """All texts of a kind are one batch, so that their order does not matter."""
    data, rate, hidden = two_clusters(9), 1e-3, 7
    params = {"hidden": hidden, "steps": 3, "mixed": False, "batch": 9, "learning_rate": rate}
    params["standardise"] = False
    gate, found = GATES.made("controller", params).fit(data)
    assert [site.layer for site in gate.reads] == [1, 2, 3, 4]
    torch.manual_seed(0)
    first, out = torch.nn.Linear(4 * WIDTH, hidden), torch.nn.Linear(hidden, 1 + N_LAYERS)
    weights = [first.weight, first.bias, out.weight, out.bias]
    mean, square = [[torch.zeros_like(w) for w in weights] for _ in range(2)]
    for step in (1, 2, 3):
        values, label = (data.closing, 0) if step == 2 else (data.opening, 1)
        loss = torch.zeros(())
        for text in values:
            y = out(torch.clamp(first(torch.cat([text[layer] for layer in (1, 2, 3, 4)])), min=0))
            chance = 1 / (1 + torch.exp(-y[0]))
            loss = loss - torch.log(chance if label else 1 - chance) / 9
            if label:
                w = 1 / (1 + torch.exp(-y[1:]))
                loss = loss + 0.1 * ((w - 0.5).abs().mean() + 0.01 * w.mean()) / 9
        gradients = torch.autograd.grad(loss, weights)
        length = float(sum(g.square().sum() for g in gradients)) ** 0.5
        with torch.no_grad():
            for w, g, m, v in zip(weights, gradients, mean, square, strict=True):
                g = g * min(1.0, 1 / length)
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                w.mul_(1 - 0.01 * rate)
                w -= rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    names = ("hidden_weight", "hidden_bias", "out_weight", "out_bias")
    for name, expected in zip(names, weights, strict=True):
        torch.testing.assert_close(found[name], expected.detach(), atol=1e-5, rtol=1e-4)


def test_lengths_and_offsets_of_dimensions_change_nothing() -> None:
    """One is a thousand in all texts, as real models have them, and one never varies."""
    data, params = two_clusters(9), {"hidden": 8, "steps": 20}
    size = drawn(WIDTH, seed=5).exp() * 30
    offset = torch.zeros(WIDTH)
    size[2], offset[1], offset[2] = 0, 1000, 7
    moved = GateInput(data.opening * size + offset, data.closing * size + offset, data.layers)
    flat = GateInput(data.opening.clone(), data.closing.clone(), data.layers)
    flat.opening[..., 2] = flat.closing[..., 2] = 0
    before = strengths(flat.opening, *GATES.made("controller", params).fit(flat), dose="logit")
    fitted = GATES.made("controller", params).fit(moved)
    torch.testing.assert_close(
        strengths(moved.opening, *fitted, dose="logit"), before, atol=2e-3, rtol=2e-3
    )
    elsewhere = moved.opening.clone()
    elsewhere[..., 2] = 50  # of which training knows nothing
    torch.testing.assert_close(strengths(elsewhere, *fitted), strengths(moved.opening, *fitted))


def test_the_same_seed_trains_the_same_network_and_another_another() -> None:
    def weights(seed: int) -> Tensor:
        params = {"hidden": 8, "steps": 4, "seed": seed}
        return GATES.made("controller", params).fit(two_clusters(9))[1]["hidden_weight"]

    first = weights(1)
    torch.manual_seed(99)
    assert torch.equal(first, weights(1)) and not torch.equal(first, weights(2))


def test_without_hidden_units_its_probability_is_that_of_sklearn_s_probe() -> None:
    data = two_clusters(40, shift=1.0)
    fitted = GATES.made("controller", {"hidden": 0, "layers": (2,)}).fit(data)
    x = torch.cat([data.opening[:, 2], data.closing[:, 2]]).double().numpy()
    scaled, labels = (x - x.mean(0)) / x.std(0), np.repeat([1, 0], 40)
    theirs = LogisticRegression(tol=1e-10, max_iter=10_000).fit(scaled, labels)
    texts = torch.cat([data.opening, data.closing])
    found = 2 * strengths(texts, *fitted, dose="probability").double().numpy()
    expected = np.repeat(theirs.predict_proba(scaled)[:, 1:], N_LAYERS, axis=1)
    assert found == pytest.approx(expected, abs=1e-3)


def test_it_reads_nothing_behind_the_edit_that_it_opens() -> None:
    data = two_clusters(9)
    early = GateInput(data.opening, data.closing, (0, 1))
    gate, _ = GATES.made("controller", {"hidden": 8, "steps": 1}).fit(early)
    assert gate.reads == (ModuleId("residual_in", 0), ModuleId("residual_in", 1))


SHARES = torch.tensor([0.1, 0.9, 0.25])
LAYERS = (1, 2)


@torch.no_grad()
def one_that_opens(prompt: list[int]) -> tuple[FittedGate, float]:
    """A linear controller with a share for each layer that one of the prompts opens; and its dose.

    It says 2 for that prompt, and less than 0 for the others.
    """
    loaded, ends = tiny_loaded(), []
    for one in PROMPTS:
        states = loaded.model(torch.tensor([one]), output_hidden_states=True).hidden_states
        ends.append(torch.cat([states[0][0, -1], states[1][0, -1]]))
    wanted = torch.tensor([2.0 if one == prompt else -1.0 for one in PROMPTS])
    found = torch.linalg.lstsq(torch.stack(ends), wanted[:, None]).solution[:, 0]
    weight = torch.cat([found[None], torch.zeros(len(SHARES), len(found))])
    bias = torch.cat([torch.zeros(1), SHARES.logit()])
    gate = GATES.made("controller", {"hidden": 0, "layers": (0, 1)})
    return FittedGate(gate, {"out_weight": weight, "out_bias": bias}), 2.0


def pushing(gate: FittedGate | None, dose: float = 0.0) -> Intervention:
    """Layers pushed behind a gate, or without one each by its share of a dose."""
    directions = torch.nn.functional.normalize(drawn(2, 32, seed=5), dim=-1)
    weights = torch.ones(2) if gate else dose * SHARES[list(LAYERS)]
    modules = tuple(ModuleId("layer", layer) for layer in LAYERS)
    tensors = {"direction": directions, "scale": torch.full((2,), 8.0)}
    return Intervention((Edit(modules, tensors, weights, scope="last", gate=gate),))


@torch.no_grad()
def test_every_layer_gets_its_share_for_a_prompt_that_opens_and_no_bit_changes_for_others() -> None:
    loaded = tiny_loaded()
    gate, dose = one_that_opens(PROMPTS[1])
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        bare = loaded.model(ids).logits
        with applied(loaded, pushing(gate)):
            found = loaded.model(ids).logits
        if prompt != PROMPTS[1]:
            assert torch.equal(found, bare)
            continue
        with applied(loaded, pushing(None, dose)):
            expected = loaded.model(ids).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert float((found - bare).abs().max()) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("cache", [True, False])
def test_it_decides_once_for_each_prompt_of_a_batch(cache: bool) -> None:
    loaded = tiny_loaded()
    gate, dose = one_that_opens(PROMPTS[1])

    def texts(rows: list[list[int]], iv: Intervention | None) -> list[list[int]]:
        with applied(loaded, iv):
            made = loaded.model.generate(
                **padded(rows), max_new_tokens=6, min_new_tokens=6, do_sample=False, use_cache=cache
            )
        return made[:, -6:].tolist()

    bare, steered = texts(PROMPTS, None), texts(PROMPTS, pushing(None, dose))
    assert steered[1] != bare[1]
    together = texts(PROMPTS, pushing(gate))
    assert together == [bare[0], steered[1], bare[2]]
    assert together == [texts([prompt], pushing(gate))[0] for prompt in PROMPTS]


@torch.no_grad()
def test_a_spec_s_files_carry_it(tmp_path: Path) -> None:
    loaded = tiny_loaded()
    iv = pushing(one_that_opens(PROMPTS[1])[0])
    facts: dict[str, Any] = {"model": "tiny", "model_digest": "", "shape": loaded.shape}
    SteeringSpec(edits=iv.edits, alpha=1.0, **facts).save(tmp_path)
    read, ids = SteeringSpec.load(tmp_path), torch.tensor([PROMPTS[1]])
    with applied(loaded, iv):
        expected = loaded.model(ids).logits
    with applied(loaded, read.intervention()):
        torch.testing.assert_close(loaded.model(ids).logits, expected)
    assert read.edits[0].gate is not None and read.edits[0].gate.gate.params.layers == (0, 1)
