"""What is kept of the unsteered model, for whom, and when nothing is taken from it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.effects import Effects
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.models.kept_states import KeptStates, batch_key
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import sites
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.gates import GATES, FittedGate
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.types import ModuleId, ModuleKind
from tests.unit.counted_layers import counted
from tests.unit.tiny_models import random_data, tiny_loaded

DATA = random_data(4)


def states(value: float) -> Tensor:
    return torch.full((2, 5, 4), float(value))


def at(kind: ModuleKind, layer: int, gate: FittedGate | None = None) -> Edit:
    tensors = {"direction": torch.ones(1, 32), "scale": torch.ones(1)}
    return Edit((ModuleId(kind, layer),), tensors, torch.ones(1), gate=gate)


def test_what_is_kept_takes_no_more_than_its_limit_and_the_least_used_goes_first() -> None:
    size = states(0.0).numel() * 4
    kept = KeptStates(2 * size)
    kept.keep("a", 1, states(1))
    kept.keep("b", 1, states(2))
    assert kept.n_bytes == 2 * size
    assert kept.nearest("a", 1)[0] == 1
    kept.keep("c", 2, states(3))
    assert kept.n_bytes == 2 * size
    assert [kept.nearest(name, 2)[0] for name in "abc"] == [1, 0, 2]
    kept.keep("d", 1, torch.zeros(100, 100))
    assert kept.nearest("d", 1) == (0, None) and kept.n_bytes == 2 * size


def test_the_nearest_kept_layer_before_the_one_asked_for_is_found() -> None:
    kept = KeptStates()
    for layer in (2, 5):
        kept.keep("a", layer, states(layer))
    assert [kept.nearest("a", layer)[0] for layer in (1, 2, 4, 5, 9)] == [0, 2, 2, 5, 5]
    _, found = kept.nearest("a", 4)
    assert found is not None and torch.equal(found, states(2))


def test_kept_states_are_copies() -> None:
    kept, given = KeptStates(), states(1)
    kept.keep("a", 1, given)
    given.zero_()
    _, found = kept.nearest("a", 1)
    assert found is not None and torch.equal(found, states(1))


def test_batches_are_told_apart_by_all_that_they_hold() -> None:
    keys = {batch_key(True, [1], [2, 3]), batch_key(True, [1, 2], [3]), batch_key(False, [1], [2])}
    assert len(keys) == 3
    assert batch_key("neutral", [[1, 2]]) == batch_key("neutral", [[1, 2]])


@pytest.mark.parametrize(
    ("edits", "first"),
    [
        ([("layer", 2), ("head", 1)], 1),
        ([("final", 0)], 3),
        ([("final", 0), ("mlp", 2)], 2),
    ],
)
def test_the_first_layer_is_the_first_that_anything_touches(edits: Any, first: int) -> None:
    intervention = Intervention(tuple(at(kind, layer) for kind, layer in edits))
    assert intervention.first_layer(3) == first
    assert Intervention(intervention.edits, strength=0.0).first_layer(3) == 3


def test_what_a_gate_reads_counts_as_touched() -> None:
    gate = FittedGate(GATES.made("prompt_similarity", {"layer": 1}), {})
    assert Intervention((at("layer", 2, gate),)).first_layer(3) == 1


def pushed(loaded: LoadedModel, layer: int, kind: ModuleKind) -> Intervention:
    width = loaded.shape.modules_per_layer(kind) * loaded.shape.width(kind)
    draw = torch.Generator().manual_seed(layer)
    return Intervention.adding({layer: torch.randn(width, generator=draw)}, "all", kind)


def measured(loaded: LoadedModel, iv: Intervention | None) -> tuple[list[list[float]], Any]:
    encoded = encode_choices(loaded, DATA, range(4), 60)
    neutral = encode_neutral(loaded, DATA.neutral_texts, 60)
    return score_choices(loaded, encoded, iv), side_effects(loaded, neutral, iv)


def test_measurements_one_after_another_are_those_of_a_model_that_has_read_nothing() -> None:
    loaded = tiny_loaded()
    order: list[tuple[ModuleKind, int]] = [("layer", 2), ("head", 1), ("mlp", 2), ("head", 0)]
    for kind, layer in order:
        iv = pushed(loaded, layer, kind)
        assert measured(loaded, iv) == measured(tiny_loaded(), iv)
        assert measured(loaded, None) == measured(tiny_loaded(), None)


def test_copies_of_a_model_take_what_another_has_read() -> None:
    loaded = tiny_loaded()
    expected = measured(loaded, None)
    copy = loaded.private_copy()
    with counted(copy) as ran:
        assert measured(copy, None) == expected
    assert not ran


def test_a_model_whose_weights_have_changed_is_read_anew() -> None:
    loaded, other = tiny_loaded(), tiny_loaded()
    iv = pushed(loaded, 2, "head")
    before = measured(loaded, iv)
    for one in (loaded, other):
        with torch.no_grad():
            next(iter(sites(one.model, "mlp")[0].parameters())).mul_(2)
    assert measured(loaded, iv) == measured(other, iv) != before


def test_texts_in_other_batches_are_read_anew() -> None:
    loaded = tiny_loaded()
    measured(loaded, None)
    other = encode_neutral(loaded, DATA.neutral_texts[1:], 60)
    with counted(loaded) as ran:
        side_effects(loaded, other, None)
    assert len(set(ran)) == loaded.shape.n_layers


def test_a_model_that_others_have_hooked_is_read_whole_and_nothing_of_it_is_kept() -> None:
    loaded = tiny_loaded()
    outer, inner = pushed(loaded, 0, "layer"), pushed(loaded, 2, "head")
    measured(loaded, inner)
    before = loaded.kept.n_bytes
    both = Intervention((*outer.edits, *inner.edits))
    encoded = encode_choices(loaded, DATA, range(4), 60)
    with applied(loaded, outer), counted(loaded) as ran:
        found = score_choices(loaded, encoded, inner)
    assert len(set(ran)) == loaded.shape.n_layers
    assert loaded.kept.n_bytes == before
    assert found == score_choices(tiny_loaded(), encoded, both)


def test_effects_of_modules_layer_by_layer_run_each_layer_but_what_comes_after_it() -> None:
    loaded = tiny_loaded()
    effects = Effects(loaded, DATA, range(4), 10_000)
    n_layers = len(sites(loaded.model, "layer"))
    push = torch.ones(loaded.shape.head_dim)
    for layer in range(n_layers):
        with counted(loaded) as ran:
            first = effects(ModuleId("head", layer, 0), push)
            again = effects(ModuleId("head", layer, 0), push)
        assert first == again != 0
        before = max(layer - 1, 0)
        assert ran == [*range(before, n_layers), *range(layer, n_layers)]
