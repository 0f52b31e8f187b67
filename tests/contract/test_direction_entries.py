"""What every direction keeps to, over the table: a new one is tested without being named."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score

from real_tasks.contract.planted import part_of, planted_input
from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput
from real_tasks.vocabulary.types import ModuleId


def partners(labels: list[int], questions: list[int]) -> tuple[int, ...]:
    """Of each sample the first one that is left of its question with the other label, or -1."""
    found = [-1] * len(labels)
    for one, label in enumerate(labels):
        for other in range(one + 1, len(labels)):
            alike = questions[one] == questions[other] and label != labels[other]
            if alike and found[one] == found[other] == -1:
                found[one], found[other] = other, one
    return tuple(found)


DATA = planted_input(6, relevant=[1, 4], n_questions=80, d=16, strength=4.0)

SEEN = FitterInput(
    DATA.modules,
    DATA.values,
    DATA.labels,
    DATA.questions,
    pairs=partners(DATA.labels.tolist(), DATA.questions.tolist()),
    classes=tuple(DATA.labels.tolist()),
    class_names=("away", "there"),
    conditions=tuple(DATA.labels.tolist()),
    condition_names=("away", "there"),
)
CROSSED = {
    "classes": (DATA.questions % 16 == 15).int().tolist(),
    "class_names": ("mine", "other"),
    "labels": torch.where(DATA.questions % 16 == 15, torch.arange(320) % 4 // 2, DATA.labels),
}
"""Classes that cross the labels; those of the other one say nothing of what was planted."""
SEEN_BY = {"purified": CROSSED, "class_axes": CROSSED}
PARAMS: dict[str, dict[str, Any]] = {
    "one_vs_rest": {"class_name": "there"},
    "purified": {"class_name": "mine"},
    "class_axes": {"strengths": {"mine": 1}},
    "prompt_difference": {"condition": "there"},
    "prompt_mean_difference": {"condition": "there"},
}

pytestmark = pytest.mark.parametrize(
    "name", [name for name in FITTERS if issubclass(FITTERS[name], DirectionFitter)]
)


def fitted(name: str, seen: FitterInput, seed: int) -> torch.Tensor:
    seen = replace(seen, **SEEN_BY.get(name, {}))
    return FITTERS.made(name, PARAMS.get(name, {})).fit(seen, seed)["direction"]


def directions(name: str, seed: int = 0) -> torch.Tensor:
    return fitted(name, replace(SEEN, values=DATA.values), seed)


def test_every_module_gets_a_finite_unit_vector(name: str) -> None:
    found = directions(name)
    assert found.shape == (6, 16) and found.dtype == DATA.values.dtype
    assert bool(found.isfinite().all())
    assert found.norm(dim=-1).tolist() == pytest.approx([1.0] * 6, abs=1e-5)


def test_the_same_seed_gives_the_same_direction_whatever_was_drawn_before(name: str) -> None:
    before = directions(name)
    torch.manual_seed(777)
    assert torch.equal(directions(name), before)


def test_a_module_has_the_same_direction_in_any_shard(name: str) -> None:
    part = part_of(DATA, [4, 2])
    found = fitted(name, replace(SEEN, modules=part.modules, values=part.values), 0)
    assert torch.allclose(found, directions(name)[[4, 2]], atol=1e-6)


def test_it_is_either_drawn_from_the_seed_or_measured_from_the_activations(name: str) -> None:
    drawn = not torch.allclose(directions(name, seed=1), directions(name))
    turned = fitted(name, replace(SEEN, values=-DATA.values), 0)
    measured = not torch.allclose(turned, directions(name))
    assert drawn != measured


def test_a_measured_direction_separates_the_labels_of_the_planted_modules(name: str) -> None:
    if not torch.allclose(directions(name, seed=1), directions(name)):
        pytest.skip("it is drawn, not measured")
    for module in (1, 4):
        along = DATA.values[module] @ directions(name)[module]
        assert roc_auc_score(DATA.labels, along) > 0.85


def test_scale_and_shift_of_the_activations_do_not_turn_it(name: str) -> None:
    found = fitted(name, replace(SEEN, values=10 * DATA.values + 3), 0)
    assert torch.allclose(found, directions(name), atol=1e-4)


def test_it_works_in_any_precision_and_leaves_the_input_as_it_was(name: str) -> None:
    values = DATA.values.double()
    before = values.clone()
    modules = [ModuleId("head", 0, head) for head in range(6)]
    assert fitted(name, replace(SEEN, modules=modules, values=values), 0).dtype == torch.float64
    assert torch.equal(values, before)
