"""Directions of several classes: planted axes, plain loops, what is refused."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from real_tasks.steering.edits import Edit
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId

MODULES = tuple(ModuleId("layer", layer) for layer in range(2))
NAMES = ("kind", "reader", "way")
N, D = 600, 24
LABELS, CLASSES = torch.arange(N) % 2, torch.arange(N) // 2 % 3
DRAW = torch.Generator().manual_seed(0)
AXES = torch.linalg.qr(torch.randn(2, D, 3, generator=DRAW)).Q.mT
NOISE = torch.randn(2, N, D, generator=DRAW)
VARIED = torch.linspace(-1, 1, N)[torch.randperm(N, generator=DRAW)].abs() * (2 * LABELS - 1)


def seen(values: Tensor) -> FitterInput:
    classes = tuple(CLASSES.tolist())
    return FitterInput(MODULES, values, LABELS, LABELS, (), classes, NAMES)


def found(name: str, data: FitterInput, **params: Any) -> Tensor:
    return FITTERS.made(name, params).fit(data, 0)["direction"]


def of_each_class(axes: Tensor, by: Tensor) -> Tensor:
    """Values in which every class has an axis of its own, ``[module, class, d]``."""
    return axes[:, CLASSES] * by[:, None]


NORMS = seen(0.1 * NOISE + of_each_class(AXES, 3 * VARIED) + 7)


def test_three_planted_axes_are_found_each_by_its_own_strength() -> None:
    for number, name in enumerate(NAMES):
        along = torch.einsum("md,mkd->mk", found("class_axes", NORMS, strengths={name: 2}), AXES)
        own = along[:, number]
        others = torch.cat([along[:, :number], along[:, number + 1 :]], dim=1)
        assert float(own.min()) > 0.99 and float(others.abs().max()) < 0.1


def test_one_strength_moves_its_own_read_out_and_strengths_are_as_they_are_told() -> None:
    fitted = FITTERS.made("class_axes", {"strengths": {"kind": 1, "way": 0}}).fit(NORMS, 0)
    edit = Edit(MODULES, fitted, torch.ones(2))
    moved = edit.displacement(2.0)
    assert moved is not None
    read = torch.einsum("md,mkd->mk", moved, AXES)
    assert float(read[:, 1:].abs().max()) < 0.02 * float(read[:, 0].min())
    pair = found("class_axes", NORMS, strengths={"kind": 3, "reader": -1})
    read = torch.einsum("md,mkd->mk", pair, AXES)
    assert torch.allclose(read[:, 0] / read[:, 1], torch.full((2,), -3.0), rtol=0.05)


def test_the_sum_of_axes_equals_a_plain_loop_over_singular_vectors() -> None:
    values = of_each_class(AXES, 3 * VARIED) + NOISE
    direction = found("class_axes", seen(values)).numpy()
    for module in range(2):
        total = np.zeros(D)
        for number in range(3):
            x = values[module][number == CLASSES].double().numpy()
            label = LABELS[number == CLASSES].numpy()
            axis = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][0]
            total += axis * np.sign((x[label == 1].mean(0) - x[label == 0].mean(0)) @ axis)
        assert direction[module] == pytest.approx(total / np.linalg.norm(total), abs=1e-4)


MIXED = AXES.clone()
MIXED[:, 0] = torch.nn.functional.normalize(AXES[:, 0] + AXES[:, 1] + 0.5 * AXES[:, 2], dim=-1)
TRAITS = seen(0.5 * NOISE + of_each_class(MIXED, LABELS * 3.0))


def of_labels(data: FitterInput, number: int) -> np.ndarray:
    """The unit difference of a class's label means, by numpy."""
    x, of = data.values.double().numpy(), CLASSES.numpy() == number
    labels = data.labels.numpy()
    gap = x[:, of & (labels == 1)].mean(1) - x[:, of & (labels == 0)].mean(1)
    return np.asarray(gap / np.linalg.norm(gap, axis=1, keepdims=True))


def test_a_purified_direction_is_orthogonal_to_the_others_whatever_their_order() -> None:
    orders = [
        found("purified", TRAITS, class_name="kind", against=list(order))
        for order in permutations(["reader", "way"])
    ]
    for one in (*orders, found("purified", TRAITS, class_name="kind")):
        assert torch.allclose(one, orders[0], atol=1e-6)
        assert one.norm(dim=-1).tolist() == pytest.approx([1.0] * 2, abs=1e-6)
        for number in (1, 2):
            assert abs((one.numpy() * of_labels(TRAITS, number)).sum(1)).max() < 1e-6
        assert float((one * AXES[:, 0]).sum(-1).min()) > 0.95


def test_purifying_equals_numpys_qr_and_a_repeated_class_takes_nothing_else_away() -> None:
    direction = found("purified", TRAITS, class_name="kind").numpy()
    for module in range(2):
        q = np.linalg.qr(np.stack([of_labels(TRAITS, n)[module] for n in (1, 2)], axis=1))[0]
        own = of_labels(TRAITS, 0)[module]
        left = own - q @ (q.T @ own)
        assert direction[module] == pytest.approx(left / np.linalg.norm(left), abs=1e-6)
    values = TRAITS.values.clone()
    values[:, CLASSES == 2] = values[:, CLASSES == 1]
    once = found("purified", replace(TRAITS, values=values), class_name="kind", against=["way"])
    twice = found("purified", replace(TRAITS, values=values), class_name="kind")
    assert torch.allclose(once, twice, atol=1e-6)


def test_a_class_of_which_nothing_is_left_beside_the_others_is_refused() -> None:
    values = TRAITS.values.clone()
    values[0, CLASSES == 1] = values[0, CLASSES == 0] * 4
    with pytest.raises(UserInputError, match="less than 1% .* in 1 modules, the first is layer 0"):
        found("purified", replace(TRAITS, values=values), class_name="kind")


def test_target_and_threshold_are_those_of_the_sides_that_a_class_has() -> None:
    for name in ("purified", "one_vs_rest"):
        fitted = FITTERS.made(name, {"class_name": "kind"}).fit(TRAITS, 0)
        along = torch.einsum("msd,md->ms", TRAITS.values, fitted["direction"])
        own = CLASSES == 0
        there, away = (own & (LABELS == 1), own & (LABELS == 0))
        if name == "one_vs_rest":
            there, away = own, ~own
        ends = along[:, there].mean(1), along[:, away].mean(1)
        assert torch.allclose(fitted["target"], ends[0], atol=1e-5)
        assert torch.allclose(fitted["threshold"], (ends[0] + ends[1]) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("purified", {}, "class_name is ''; .*: kind, reader, way"),
        ("purified", {"class_name": "kind", "against": ["where"]}, "against is 'where'"),
        ("purified", {"class_name": "way", "against": ["way"]}, "the class itself"),
        ("class_axes", {"strengths": {"where": 1}}, "strengths is 'where'; .*: kind, reader"),
        ("class_axes", {"strengths": {"kind": 0}}, "expected one above or below 0"),
    ],
)
def test_parameters_that_do_not_fit_the_classes_are_refused(
    name: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserInputError, match=message):
        FITTERS.made(name, params).check(replace(NORMS, modules=(), values=torch.empty(0, N, 0)))


@pytest.mark.parametrize("name", ["purified", "class_axes"])
def test_a_class_without_one_of_the_labels_is_refused(name: str) -> None:
    params = {"class_name": "kind"} if name == "purified" else {}
    labels = torch.where(CLASSES == 1, torch.ones_like(LABELS), LABELS)
    with pytest.raises(UserInputError, match="the class 'reader' has only aligned answers"):
        FITTERS.made(name, params).check(replace(NORMS, labels=labels))
