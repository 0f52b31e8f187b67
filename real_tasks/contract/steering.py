"""What every operator and every fitter keep to, on a few modules with random activations."""

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from real_tasks.contract.base import Contract
from real_tasks.contract.planted import part_of, planted_input
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.operators import OPERATORS, Operator
from real_tasks.vocabulary.registry import Registry

WIDTH, MODULES, ROWS, POSITIONS = 6, 3, 2, 4
_SIZES = {"d": WIDTH, "rank": 2, "2": 2, "d_model": 5}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class OperatorContract(Contract):
    """Tests of an operator."""

    registry: ClassVar[Registry[Any]] = OPERATORS

    @pytest.fixture
    def made(self, name: str, params: dict[str, Any]) -> Operator:
        """The operator."""
        return OPERATORS.made(name, params)

    @pytest.fixture
    def tensors(self, made: Operator) -> dict[str, Tensor]:
        """Random tensors as the operator needs them; where it says so, of unit length."""
        found = {}
        for place, (name, axes) in enumerate(made.needs.items()):
            tensor = drawn(MODULES, *(_SIZES[axis] for axis in axes.split()), seed=place + 1)
            if name in made.unit_length:
                if tensor.dim() == 2:
                    tensor = torch.nn.functional.normalize(tensor, dim=-1)
                else:
                    tensor = torch.linalg.qr(tensor.mT).Q.mT.contiguous()
            found[name] = tensor
        return found

    def changed(self, made: Operator, tensors: dict[str, Tensor], x: Tensor, s: float) -> Tensor:
        """Return activations changed at a strength that is the same everywhere."""
        return made.apply(x, tensors, torch.full((1, 1, x.shape[2]), s))

    def unchanged(self, made: Operator, x: Tensor) -> Tensor:
        """Return what it returns where it does nothing."""
        return torch.zeros(*x.shape[:2], _SIZES["d_model"]) if made.writes else x

    def test_at_strength_0_next_to_nothing_changes(
        self, made: Operator, tensors: dict[str, Tensor]
    ) -> None:
        x = drawn(ROWS, POSITIONS, MODULES, WIDTH)
        nothing = self.unchanged(made, x)
        torch.testing.assert_close(self.changed(made, tensors, x, 0.0), nothing)

    def test_its_grid_lies_within_its_range_and_does_something(
        self, made: Operator, tensors: dict[str, Tensor]
    ) -> None:
        x = drawn(ROWS, POSITIONS, MODULES, WIDTH)
        assert made.strengths and made.formula and made.unit
        for strength in made.strengths:
            assert 0 < strength <= made.highest
            nothing = self.unchanged(made, x)
            assert not torch.allclose(self.changed(made, tensors, x, strength), nothing)

    def test_a_module_is_changed_by_its_own_tensors_alone(
        self, made: Operator, tensors: dict[str, Tensor]
    ) -> None:
        x, strength = drawn(ROWS, POSITIONS, MODULES, WIDTH), made.strengths[0]
        whole = self.changed(made, tensors, x, strength)
        each = []
        for module in range(MODULES):
            own = {name: tensor[[module]] for name, tensor in tensors.items()}
            each.append(self.changed(made, own, x[:, :, [module]], strength))
        together = sum(each[1:], each[0]) if made.writes else torch.cat(each, dim=2)
        torch.testing.assert_close(together, whole)

    def test_rows_and_positions_may_have_strengths_of_their_own(
        self, made: Operator, tensors: dict[str, Tensor]
    ) -> None:
        x = drawn(ROWS, POSITIONS, MODULES, WIDTH)
        strength = torch.zeros(ROWS, POSITIONS, 1)
        strength[1, 2] = made.strengths[-1]
        found = made.apply(x, tensors, strength.expand(-1, -1, MODULES))
        expected = self.unchanged(made, x).clone()
        expected[1, 2] = self.changed(made, tensors, x, made.strengths[-1])[1, 2]
        torch.testing.assert_close(found, expected)

    def test_it_is_affine_if_it_says_so(self, made: Operator, tensors: dict[str, Tensor]) -> None:
        if not made.affine:
            pytest.skip("it does not say so")
        x, y = drawn(1, 1, MODULES, WIDTH), drawn(1, 1, MODULES, WIDTH, seed=9)
        f, s = self.changed, made.strengths[0]
        middle = f(made, tensors, (x + 3 * y) / 4, s)
        torch.testing.assert_close(
            middle, (f(made, tensors, x, s) + 3 * f(made, tensors, y, s)) / 4
        )

    def test_what_it_calls_a_displacement_is_what_it_adds(
        self, made: Operator, tensors: dict[str, Tensor]
    ) -> None:
        strength = torch.full((MODULES,), made.strengths[0])
        added = made.displacement(tensors, strength)
        if added is None:
            pytest.skip("what it adds depends on the activations")
        x = drawn(ROWS, POSITIONS, MODULES, WIDTH)
        torch.testing.assert_close(self.changed(made, tensors, x, made.strengths[0]), x + added)


class FitterContract(Contract):
    """Tests of a fitter that needs activations and labels alone."""

    registry: ClassVar[Registry[Any]] = FITTERS

    @pytest.fixture
    def seen(self) -> FitterInput:
        """Six modules, of which two tell the labels apart."""
        data = planted_input(6, relevant=[1, 4], n_questions=40, d=12, strength=4.0)
        return FitterInput(data.modules, data.values, data.labels, data.questions)

    def test_it_gives_what_it_says_a_finite_row_each_module(
        self, name: str, params: dict[str, Any], seen: FitterInput
    ) -> None:
        found = FITTERS.made(name, params).fit(seen, 0)
        assert set(found) == set(FITTERS[name].gives)
        for tensor in found.values():
            assert len(tensor) in (1, len(seen.modules)) and bool(tensor.isfinite().all())

    def test_the_same_seed_gives_the_same_and_another_only_where_it_says_so(
        self, name: str, params: dict[str, Any], seen: FitterInput
    ) -> None:
        made = FITTERS.made(name, params)
        first, again, other = made.fit(seen, 0), made.fit(seen, 0), made.fit(seen, 1)
        assert all(torch.equal(first[tensor], again[tensor]) for tensor in first)
        same = all(torch.equal(first[tensor], other[tensor]) for tensor in first)
        assert same != FITTERS[name].stochastic

    def test_a_module_s_tensors_do_not_depend_on_the_others(
        self, name: str, params: dict[str, Any], seen: FitterInput
    ) -> None:
        if FITTERS[name].all_layers:
            pytest.skip("it says that they do")
        data = planted_input(6, relevant=[1, 4], n_questions=40, d=12, strength=4.0)
        part = part_of(data, [4, 2])
        made = FITTERS.made(name, params)
        whole = made.fit(seen, 0)
        some = made.fit(replace(seen, modules=part.modules, values=part.values), 0)
        for tensor, rows in some.items():
            own = whole[tensor] if len(whole[tensor]) == 1 else whole[tensor][[4, 2]]
            torch.testing.assert_close(rows, own, atol=1e-5, rtol=1e-4)
