"""Every operator against its formula, written out number by number, in and out of a network."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import places
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS, Operator
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import tiny_family, tiny_loaded, tiny_tokenizer

IDS = torch.tensor([[1, 9, 12, 30, 41, 7]])
CASES: list[tuple[str, dict[str, Any]]] = [
    ("add", {}),
    ("affine", {}),
    ("clamp", {}),
    ("mirror", {}),
    ("project_out", {}),
    ("replace", {}),
    ("rotate", {"to": "relative"}),
    ("rotate", {"to": "absolute"}),
    ("rotate", {"to": "relative", "way": "back"}),
    ("rotate", {"to": "absolute", "way": "back"}),
    ("scale", {}),
]
NAMES = [f"{name} {' '.join(params.values())}".strip() for name, params in CASES]
Row = dict[str, Any]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(p * q for p, q in zip(a, b, strict=True))


def along(x: Sequence[float], v: Sequence[float], by: float) -> list[float]:
    return [xi + by * vi for xi, vi in zip(x, v, strict=True)]


def mirrored(x: Sequence[float], t: Row, s: float) -> list[float]:
    p = dot(x, t["direction"])
    return along(x, t["direction"], 2 * s * (t["threshold"] - p) if p < t["threshold"] else 0)


def turned(x: Sequence[float], t: Row, s: float, absolute: bool) -> list[float]:
    """By polar coordinates within the plane."""
    first, second = t["plane"]
    a, b = dot(x, first), dot(x, second)
    angle = math.radians(s) + (0 if absolute else math.atan2(b, a))
    radius = math.sqrt(a * a + b * b)
    moved = along(x, first, radius * math.cos(angle) - a)
    return along(moved, second, radius * math.sin(angle) - b)


def changed_by(x: Sequence[float], t: Row, s: float) -> list[float]:
    read = [dot(x, column) for column in zip(*t["right"], strict=True)]
    lines = zip(x, t["left"], t["bias"], strict=True)
    return [xi + s * (dot(left, read) + bias) for xi, left, bias in lines]


PLAIN: dict[str, Callable[[Sequence[float], Row, float], list[float]]] = {
    "add": lambda x, t, s: along(x, t["direction"], s * t["scale"]),
    "affine": changed_by,
    "clamp": lambda x, t, s: along(x, t["direction"], s * (t["target"] - dot(x, t["direction"]))),
    "mirror": mirrored,
    "project_out": lambda x, t, s: along(x, t["direction"], -s * dot(x, t["direction"])),
    "replace": lambda x, t, s: [xi + s * (c - xi) for xi, c in zip(x, t["value"], strict=True)],
    "rotate relative": lambda x, t, s: turned(x, t, s, absolute=False),
    "rotate absolute": lambda x, t, s: turned(x, t, s, absolute=True),
    "rotate relative back": lambda x, t, s: turned(x, t, 360 - s, absolute=False),
    "rotate absolute back": lambda x, t, s: turned(x, t, 360 - s, absolute=True),
    "scale": lambda x, t, s: [xi * (1 + s * g) for xi, g in zip(x, t["gains"], strict=True)],
}


def drawn_tensors(
    operator: Operator, n_modules: int, width: int, seed: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"d": width, "rank": 3, "d_model": 32}
    tensors = {}
    for name, axes in operator.needs.items():
        shape = [sizes.get(axis) or int(axis) for axis in axes.split()]
        drawn = torch.randn(n_modules, *shape, generator=generator)
        if name in operator.unit_length:
            vectors = drawn if drawn.dim() == 3 else drawn[:, None]
            drawn = torch.linalg.qr(vectors.mT).Q.mT.reshape(drawn.shape)
        tensors[name] = drawn
    return tensors


def rows_of(tensors: Mapping[str, Tensor], module: int) -> Row:
    return {name: tensor[module].tolist() for name, tensor in tensors.items()}


def strengths_of(operator: Operator, n: int) -> Tensor:
    """From within the operator's range, another one for each module."""
    return torch.linspace(0.3, 0.9, n) * min(operator.highest, 100)


@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_an_operator_does_what_its_formula_says(case: int) -> None:
    operator = OPERATORS.made(*CASES[case])
    tensors = drawn_tensors(operator, 3, 8)
    x = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(1))
    strength = strengths_of(operator, 3)
    found = operator.apply(x, tensors, strength[None, None])
    assert found.shape == x.shape
    for row, position, module in torch.cartesian_prod(*map(torch.arange, x.shape[:3])).tolist():
        expected = PLAIN[NAMES[case]](
            x[row, position, module].tolist(), rows_of(tensors, module), float(strength[module])
        )
        torch.testing.assert_close(found[row, position, module], torch.tensor(expected))
    assert not torch.allclose(found, x)


@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_at_a_strength_of_zero_an_operator_changes_no_bit(case: int) -> None:
    operator = OPERATORS.made(*CASES[case])
    tensors = drawn_tensors(operator, 2, 8)
    x = 1e3 * torch.randn(2, 3, 2, 8, generator=torch.Generator().manual_seed(1))
    strength = torch.full((2, 3, 2), min(operator.highest, 2.0))
    strength[0] = 0  # as a gate says for some rows and not for others
    found = operator.apply(x, tensors, strength)
    assert torch.equal(found[0], x[0])
    assert not torch.equal(found[1], x[1])


@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_an_operator_says_truly_whether_it_is_affine(case: int) -> None:
    operator = OPERATORS.made(*CASES[case])
    tensors = {n: t.double() for n, t in drawn_tensors(operator, 1, 8).items()}
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, 1, 40, 1, 8, generator=generator, dtype=torch.double)
    strength = torch.full((1, 1, 1), 0.7 * min(operator.highest, 100), dtype=torch.double)

    def f(z: Tensor) -> Tensor:
        return operator.apply(z, tensors, strength)

    kept = torch.allclose(f(x + y) - f(y), f(x) - f(torch.zeros_like(x)), atol=1e-9)
    assert kept == operator.affine


@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_an_operator_says_what_people_and_a_search_need(case: int) -> None:
    operator = OPERATORS.made(*CASES[case])
    assert operator.formula and operator.unit
    assert operator.bounded == math.isfinite(operator.highest)
    assert all(0 < s <= operator.highest for s in operator.strengths)
    assert list(operator.strengths) == sorted(set(operator.strengths))


def test_turns_keep_the_length_add_up_and_close_after_a_whole_turn() -> None:
    operator = OPERATORS.made("rotate", {})
    tensors = drawn_tensors(operator, 1, 512)
    x = torch.randn(1, 50, 1, 512, generator=torch.Generator().manual_seed(3))

    def turn(z: Tensor, angle: float) -> Tensor:
        return operator.apply(z, tensors, torch.full((1, 1, 1), angle))

    for angle in (1.0, 90.0, 180.0, 271.0):
        ratio = turn(x, angle).norm(dim=-1) / x.norm(dim=-1)
        torch.testing.assert_close(ratio, torch.ones(1, 50, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(turn(turn(x, 50), 75), turn(x, 125), atol=1e-5, rtol=0)
    torch.testing.assert_close(turn(x, 360), x, atol=1e-5, rtol=0)
    first, second = tensors["plane"][0]
    quarter = turn(first.expand(1, 1, 1, -1), 90)[0, 0, 0]
    torch.testing.assert_close(quarter, second, atol=1e-6, rtol=0)


def test_an_absolute_turn_brings_all_to_one_angle_and_keeps_their_lengths() -> None:
    operator = OPERATORS.made("rotate", {"to": "absolute"})
    tensors = drawn_tensors(operator, 1, 16)
    x = torch.randn(1, 50, 1, 16, generator=torch.Generator().manual_seed(3))
    found = operator.apply(x, tensors, torch.full((1, 1, 1), 60.0))
    torch.testing.assert_close(found.norm(dim=-1), x.norm(dim=-1))
    a, b = (found @ vector for vector in tensors["plane"][0])
    torch.testing.assert_close(torch.atan2(b, a), torch.full_like(a, math.pi / 3))


def test_two_planted_groups_are_moved_as_each_operator_promises() -> None:
    """A hundred activations lie at -2 along the planted direction, a hundred at +3."""
    generator = torch.Generator().manual_seed(4)
    v = torch.nn.functional.normalize(torch.randn(1, 32, generator=generator), dim=-1)
    noise = torch.randn(1, 200, 1, 32, generator=generator)
    planted = torch.tensor([-2.0, 3.0]).repeat_interleave(100)[None, :, None]
    x = noise + (planted - noise @ v[0])[..., None] * v
    tensors = {"direction": v, "target": torch.tensor([3.0]), "threshold": torch.tensor([0.5])}

    def after(name: str, strength: float) -> tuple[Tensor, Tensor]:
        found = OPERATORS.made(name, {}).apply(x, tensors, torch.full((1, 1, 1), strength))
        place = found @ v[0]
        return place, found - place[..., None] * v

    rest = x - planted[..., None] * v
    for name, strength, expected in (
        ("clamp", 1.0, (3.0, 3.0)),
        ("clamp", 0.5, (0.5, 3.0)),
        ("mirror", 1.0, (3.0, 3.0)),
        ("mirror", 0.5, (0.5, 3.0)),
        ("project_out", 1.0, (0.0, 0.0)),
    ):
        place, others = after(name, strength)
        moved = torch.tensor(expected).repeat_interleave(100)[None, :, None]
        torch.testing.assert_close(place, moved, atol=1e-5, rtol=0)
        torch.testing.assert_close(others, rest, atol=1e-5, rtol=0)
    mirrored_x = OPERATORS.made("mirror", {}).apply(x, tensors, torch.ones(1, 1, 1))
    assert torch.equal(mirrored_x[:, 100:], x[:, 100:])


def read_at(loaded: LoadedModel, edit: Edit, strength: float) -> Tensor:
    """What the edit's place of layer 1 has at every position, under the edit."""
    read: list[Tensor] = []
    with applied(loaded, Intervention((edit,), strength)):
        hook = places(loaded.model, edit.kind)[1].hook(lambda found: read.append(found.clone()))
        loaded.model(IDS)
        hook.remove()
    return read[0][0]


SITES = (
    (ModuleId("head", 1, 3), ModuleId("head", 1, 0)),
    (ModuleId("neuron", 1, 5), ModuleId("neuron", 1, 40)),
    (ModuleId("mlp", 1, 7),),
    (ModuleId("attention", 1),),
    (ModuleId("layer", 1),),
)


@torch.no_grad()
@pytest.mark.parametrize("modules", SITES, ids=lambda modules: modules[0].short_name)
@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_in_a_network_the_modules_are_changed_by_their_formula_and_no_others(
    case: int, modules: tuple[ModuleId, ...]
) -> None:
    loaded, operator = tiny_loaded(), OPERATORS.made(*CASES[case])
    shape = loaded.shape
    width = shape.width(modules[0])
    if "plane" in operator.needs and width == 1:
        pytest.skip("there is no plane in a single dimension")
    tensors, weights = drawn_tensors(operator, len(modules), width), torch.tensor([1.0, 0.5])
    edit = Edit(modules, tensors, weights[: len(modules)], operator)
    strength = 0.6 * min(operator.highest, 100)
    before, after = read_at(loaded, edit, 0.0), read_at(loaded, edit, strength)
    expected = before.clone()
    for row, module in enumerate(modules):
        span = shape.span(module)
        for position in range(IDS.shape[1]):
            expected[position, span] = torch.tensor(
                PLAIN[NAMES[case]](
                    before[position, span].tolist(),
                    rows_of(tensors, row),
                    strength * float(weights[row]),
                )
            )
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-4)
    touched = torch.zeros(before.shape[-1], dtype=torch.bool)
    for module in modules:
        touched[shape.span(module)] = True
    assert torch.equal(after[:, ~touched], before[:, ~touched])


@torch.no_grad()
@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_in_half_precision_the_result_alone_is_rounded(case: int) -> None:
    loaded = prepare(tiny_family("llama", dtype=torch.bfloat16), tiny_tokenizer())
    operator = OPERATORS.made(*CASES[case])
    tensors = drawn_tensors(operator, 1, 32)
    edit = Edit((ModuleId("layer", 1),), tensors, torch.ones(1), operator)
    strength = 0.6 * min(operator.highest, 100)
    before, after = read_at(loaded, edit, 0.0), read_at(loaded, edit, strength)
    assert after.dtype == torch.bfloat16
    # What is the same for all activations is rounded first and added in the model's own type.
    size = float(before.abs().max()) + strength if NAMES[case] == "add" else 0
    for position in range(IDS.shape[1]):
        exact = PLAIN[NAMES[case]](before[position].tolist(), rows_of(tensors, 0), strength)
        torch.testing.assert_close(
            after[position].double(),
            torch.tensor(exact).double(),
            atol=1e-4 + size * 2**-8,
            rtol=2**-8,
        )


@torch.no_grad()
@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_lengths_are_kept_under_every_operator_where_that_is_asked_for(case: int) -> None:
    loaded, operator = tiny_loaded(), OPERATORS.made(*CASES[case])
    tensors = drawn_tensors(operator, 1, 32)
    edit = Edit((ModuleId("mlp", 1),), tensors, torch.ones(1), operator, keep_norm=True)
    before = read_at(loaded, edit, 0.0)
    after = read_at(loaded, edit, 0.7 * min(operator.highest, 100))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(before.norm(dim=-1), after.norm(dim=-1))


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("project_out", {"direction": 2 * torch.eye(32)[:1]}, "lengths of 2 to 2"),
        ("rotate", {"plane": torch.eye(32)[[0, 0]][None]}, "orthogonal where a module has several"),
        ("rotate", {"plane": torch.eye(32)[None, :3]}, "plane with 3 along its axis 2, not 2"),
        (
            "affine",
            {
                "left": torch.ones(1, 32, 2),
                "right": torch.ones(1, 32, 3),
                "bias": torch.zeros(1, 32),
            },
            "right with 3 along its axis rank, not 2",
        ),
        ("clamp", {"direction": torch.eye(32)[:1]}, "needs the tensor 'target', which is missing"),
    ],
)
def test_tensors_that_an_operator_cannot_mean_are_refused(
    name: str, tensors: dict[str, Tensor], message: str
) -> None:
    edit = Edit((ModuleId("layer", 1),), tensors, torch.ones(1), OPERATORS.made(name, {}))
    with (
        pytest.raises(UserInputError, match=message),
        applied(tiny_loaded(), Intervention((edit,), 0.5)),
    ):
        pass
