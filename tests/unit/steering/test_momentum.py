"""Gains of single dimensions by how many pairs agree on them (AUSteer, arXiv 2602.04428)."""

import copy

import pytest
import torch
from torch import Tensor

from real_tasks.export.rewriting import rewritten
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId, ModuleKind
from tests.unit.tiny_models import tiny_loaded

PLANTED = {(0, 3): 1, (1, 7): -1, (2, 0): 1, (2, 15): 1, (3, 8): -1}
"""Dimensions that pairs agree on, by layer and place, and which way."""
LOUD = (1, 2)


def paired(values: Tensor) -> FitterInput:
    """Samples of which each aligned one, at odd places, follows its partner."""
    places = range(values.shape[1])
    modules = tuple(ModuleId("mlp", layer) for layer in range(len(values)))
    labels = torch.tensor([place % 2 for place in places])
    pairs = tuple(place ^ 1 for place in places)
    return FitterInput(modules, values, labels, labels * 0, pairs=pairs)


def fitted(data: FitterInput, dimensions: int) -> dict[str, Tensor]:
    return FITTERS.made("momentum", {"dimensions": dimensions}).fit(data, 0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_pairs_agree_on_is_found_in_all_layers_and_one_loud_pair_is_not() -> None:
    values = drawn(4, 800, 16)
    for (layer, place), sign in PLANTED.items():
        values[layer, 1::2, place] += 0.8 * sign
    values[(LOUD[0], 1, LOUD[1])] += 2000.0
    found = fitted(paired(values), len(PLANTED))["gains"]
    assert {tuple(at): int(found[tuple(at)].sign()) for at in found.nonzero().tolist()} == PLANTED
    mean = (values[:, 1::2] - values[:, ::2]).mean(dim=1).abs()
    assert divmod(int(mean.argmax()), 16) == LOUD


def test_gains_equal_a_plain_loop_and_those_that_tie_go_by_their_steadiness() -> None:
    values = drawn(3, 24, 5, seed=1).round(decimals=1)
    momentum, order = {}, []
    for layer in range(3):
        for place in range(5):
            moved = [
                float(values[layer, i + 1, place]) - float(values[layer, i, place])
                for i in range(0, 24, 2)
            ]
            up, down = sum(m > 0 for m in moved), sum(m < 0 for m in moved)
            share = 0.0 if up == down else (up if up > down else -down) / len(moved)
            mean = sum(moved) / len(moved)
            spread = (sum((m - mean) ** 2 for m in moved) / len(moved)) ** 0.5
            momentum[layer, place] = share
            order.append((abs(share), abs(mean) / spread, layer, place))
    kept = {(layer, place) for *_, layer, place in sorted(order, reverse=True)[:6]}
    assert sorted(order)[-6][0] == sorted(order)[-7][0]  # the last place goes by steadiness
    found = fitted(paired(values), 6)
    for at, share in momentum.items():
        assert float(found["momentum"][at]) == pytest.approx(share)
        assert float(found["gains"][at]) == pytest.approx(share if at in kept else 0.0)
    means = values[:, 1::2].double().mean(dim=1)
    assert torch.equal(found["mean_sign"].double(), means.sign())


def test_without_a_pair_in_training_it_says_what_to_add() -> None:
    data = paired(drawn(1, 4, 2))
    with pytest.raises(UserInputError, match="add a field pair"):
        fitted(FitterInput(data.modules, data.values, data.labels, data.questions), 1)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["head", "mlp"])
def test_baked_gains_do_what_hooks_do_and_leave_all_other_weights_alone(kind: ModuleKind) -> None:
    loaded = tiny_loaded()
    modules = loaded.shape.modules(kind)
    width = loaded.shape.width(modules[0])
    data = FitterInput(
        modules,
        drawn(len(modules), 20, width, seed=2),
        torch.arange(20) % 2,
        torch.zeros(20, dtype=torch.long),
        pairs=tuple(place ^ 1 for place in range(20)),
    )
    gains = fitted(data, 6)["gains"]
    edit = Edit(modules, {"gains": gains}, torch.ones(len(modules)), OPERATORS.made("scale", {}))
    intervention = Intervention((edit,), 4.0)
    baked, ids = copy.deepcopy(loaded.model), torch.tensor([[1, 9, 12, 30, 41]])
    made = rewritten(loaded.model, intervention)
    changed = 0
    for name, weight in made.weights.items():
        before = loaded.model.get_parameter(name)
        lines = (weight != before).any(dim=0 if kind == "head" else 1)
        changed += int(lines.sum())
    baked.load_state_dict(made.weights, strict=False)
    assert changed == 6 and not made.biases
    bare = loaded.model(ids).logits
    with applied(loaded, intervention):
        hooked = loaded.model(ids).logits
    torch.testing.assert_close(baked(ids).logits, hooked, atol=1e-5, rtol=0)
    assert (hooked - bare).abs().max() > 1e-3
