"""A-LQR: gains against the optimum itself, Jacobians by differences, feedback in a tiny model."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from real_tasks.evaluation.jacobians import mean_jacobians
from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.models.loading import prepare
from real_tasks.models.places import places
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.fitters.lqr import gains
from real_tasks.steering.gates import GATES, FittedGate
from real_tasks.steering.hooks import applied
from real_tasks.steering.model_access import Text
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import tiny_family, tiny_loaded, tiny_tokenizer

T, D = 4, 5
IDS = torch.tensor([[1, 9, 12, 30, 41, 7]])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gains_are_those_of_the_controls_of_least_cost() -> None:
    """All controls at once by least squares, which knows nothing of Riccati."""
    blocks, start, costs = drawn(T, D, D), drawn(D, seed=1).numpy(), (0.7, 2.0, 1.3)
    found, a = [*gains(blocks, *costs)][::-1], blocks.numpy()
    # State t is ahead[t] @ start + the sum over s of effects[t][:, s] @ control s.
    ahead, effect = np.eye(D), np.zeros((D, T * D))
    rows, wanted = [np.sqrt(costs[1]) * np.eye(T * D)], [np.zeros(T * D)]
    for t in range(T):
        ahead, effect = a[t] @ ahead, a[t] @ effect
        effect[:, t * D : (t + 1) * D] += np.eye(D)
        weight = np.sqrt(costs[2] if t == T - 1 else costs[0])
        rows.append(weight * effect)
        wanted.append(-weight * ahead @ start)
    best = np.linalg.lstsq(np.concatenate(rows), np.concatenate(wanted), rcond=None)[0]
    x = start
    for t in range(T):
        u = -found[t].numpy() @ x
        assert u == pytest.approx(best[t * D : (t + 1) * D], abs=1e-8)
        x = a[t] @ x + u


def test_control_that_costs_nothing_cancels_a_block_and_dear_control_does_nothing() -> None:
    blocks = drawn(T, D, D)
    for gain, block in zip(gains(blocks, 1.0, 1e-10, 1.0), blocks.flip(0), strict=True):
        torch.testing.assert_close(gain, block, atol=1e-8, rtol=1e-8)
    assert all(gain.abs().max() < 1e-6 for gain in gains(blocks, 1.0, 1e10, 1.0))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_jacobians_are_autograd_s_of_a_whole_pass_without_a_cache(family: str) -> None:
    model, layer = tiny_family(family), 1
    found = mean_jacobians(prepare(model, tiny_tokenizer()), IDS.tolist(), 60)
    before, after = places(model, "residual_in")[layer], places(model, "layer")[layer]
    kept: list[Tensor] = []

    def behind(given: Tensor) -> Tensor:
        def put(values: Tensor) -> Tensor:
            return torch.cat([values[:, :-1], given[None, None]], dim=1)

        hooks = [before.hook(put), after.hook(lambda values: kept.append(values[0, -1]))]
        model(IDS)
        for hook in hooks:
            hook.remove()
        return kept[-1]

    own: list[Tensor] = []
    hook = before.hook(lambda values: own.append(values[0, -1].detach()))
    model(IDS)
    hook.remove()
    expected = torch.autograd.functional.jacobian(behind, own[0])
    torch.testing.assert_close(found[layer], expected, atol=1e-4, rtol=1e-4)


def test_of_long_texts_the_first_token_and_the_last_ones_are_read() -> None:
    """The first tokens alone may be a prompt's that all texts share, where there is no answer."""
    loaded = prepare(tiny_family("llama"), tiny_tokenizer())
    texts = [Text("w1 w2 w3 w4 w5", f"w1 w2 w3 w4 w5 w{i} w9") for i in (20, 30)]
    found = ModelHandle(loaded, 64).jacobians(texts, 4)
    ids = loaded.tokenizer(["w5 w20 w9", "w5 w30 w9"])["input_ids"]
    torch.testing.assert_close(found, mean_jacobians(loaded, ids, 64))


class Linear:
    """A model of which the Jacobians alone are known."""

    def __init__(self, blocks: Tensor) -> None:
        self._blocks = blocks

    def jacobians(self, texts: list[Text], tokens: int) -> Tensor:
        assert len(texts) == 3 and tokens == 24
        return self._blocks


def fitted(n_layers: int, d: int, **params: Any) -> tuple[FitterInput, dict[str, Tensor], Tensor]:
    labels = torch.arange(20) % 2
    values = 3 * drawn(n_layers, 20, d, seed=4).float() + labels[:, None]
    blocks = drawn(n_layers, d, d, seed=5).float() / d**0.5
    texts = tuple(Text(f"Q{i}", f"Q{i} a") for i in range(20))
    modules = tuple(ModuleId("layer", layer) for layer in range(n_layers))
    model = cast(Any, Linear(blocks))
    data = FitterInput(modules, values, labels, labels // 2, texts=texts, model=model)
    return data, FITTERS.made("lqr", {"texts": 3, **params}).fit(data, 0), blocks


@torch.no_grad()
def test_feedback_along_one_vector_is_that_of_the_whole_gains() -> None:
    """At every layer a plain loop adds K times the distance, as a vector, to what comes out."""
    loaded = tiny_loaded()
    n_layers, d = loaded.shape.n_layers, loaded.shape.d_model
    data, found, blocks = fitted(n_layers, d, control=1.0)
    edits = []
    for layer, module in enumerate(data.modules):
        own = {name: found[name][[layer]] for name in ("direction", "scale")}
        gate = GATES.made("setpoint", {}).placed(module)
        of_gate = {name: found[name][layer] for name in ("read", "setpoint")}
        edits.append(Edit((module,), own, torch.ones(1), gate=FittedGate(gate, of_gate)))
    whole = [gain.float() for gain in gains(blocks, 10.0, 1.0, 1.0)][::-1]
    inputs: list[Tensor] = []

    def feed_back(layer: int, values: Tensor) -> Tensor | None:
        if layer == 0:
            return None
        gap = data.values[layer - 1, 1::2].mean(0) - data.values[layer - 1, ::2].mean(0)
        v = gap / gap.norm()
        distance = (2.0 * gap.norm() - inputs[layer] @ v)[..., None] * v
        return values + 0.5 * distance @ whole[layer].T

    hooks = [
        place.hook(lambda values: inputs.append(values.clone()))
        for place in places(loaded.model, "residual_in")
    ]
    hooks += [
        place.hook(lambda values, layer=layer: feed_back(layer, values))
        for layer, place in enumerate(places(loaded.model, "layer"))
    ]
    expected = loaded.model(IDS).logits
    for hook in hooks:
        hook.remove()
    bare = loaded.model(IDS).logits
    with applied(loaded, Intervention(tuple(edits), 0.5)):
        steered = loaded.model(IDS).logits
    torch.testing.assert_close(steered, expected, atol=1e-4, rtol=1e-4)
    assert float((steered - bare).abs().max()) > 0.1


def test_the_first_layer_adds_nothing_and_parts_of_layers_are_refused() -> None:
    data, found, _ = fitted(3, 6)
    assert found["scale"][0] == 0 and bool((found["scale"][1:] > 0).all())
    heads = FitterInput((ModuleId("head", 0, 0),), *list(vars(data).values())[1:])
    with pytest.raises(UserInputError, match=r"expected part: layer"):
        FITTERS.made("lqr", {}).fit(heads, 0)
