"""What every localizer keeps to, on activations in which one of four modules is planted."""

from dataclasses import fields, replace
from functools import cache
from typing import Any, ClassVar

import pytest
import torch

from real_tasks.contract.base import Contract
from real_tasks.contract.planted import part_of, planted_input
from real_tasks.localizers import LOCALIZERS, Localizer
from real_tasks.steering.fitters.mean_difference import mean_difference
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleId

PLANTED = 2
WIDTH = 32


def localizer(name: str) -> Localizer:
    """The localizer with its default parameters."""
    return LOCALIZERS[name](LOCALIZERS[name].Params())


@cache
def shard() -> LocalizerInput:
    """Return four modules, of which one tells the labels apart."""
    return planted_input(4, relevant=[PLANTED], n_questions=60, d=WIDTH, strength=3.0)


def as_given(name: str, data: LocalizerInput) -> LocalizerInput:
    """The data as the localizer gets it: with effects if it uses them, of a model that is planted.

    In that model only the planted module does anything: it brings the aligned answers out as far
    as it is pushed from the violating towards them, in units of their distance.
    """
    if LOCALIZERS[name].uses_weights:
        width = data.values.shape[-1]
        data = replace(data, weight=lambda module: torch.eye(width))  # noqa: ARG005
    if LOCALIZERS[name].beside:  # a stream that is what the planted module has
        data = replace(data, beside=shard().values[PLANTED])
    if not LOCALIZERS[name].uses_effects:
        return data
    there = shard().values[[PLANTED]]
    gap = there[0, data.labels == 1].mean(dim=0) - there[0, data.labels == 0].mean(dim=0)
    towards = mean_difference(there, data.labels)[0]

    def effect(module: ModuleId, displacement: torch.Tensor) -> float:
        along = float(displacement @ towards / gap.norm())
        return along if module == shard().modules[PLANTED] else 0.0

    if LOCALIZERS[name](LOCALIZERS[name].Params()).few_shot is None:
        return replace(data, effect=effect)
    means = {
        (module, label): data.values[place, data.labels == label].mean(dim=0)
        for place, module in enumerate(data.modules)
        for label in (0, 1)
    }
    return replace(
        data,
        effect=lambda module, value: effect(module, value - means[module, 0]),
        shown=lambda modules: torch.stack([means[module, 1] for module in modules])[:, None],
    )


def localize(name: str, data: LocalizerInput, seed: int = 0) -> LocalizerResult:
    """Return what the localizer makes of the data."""
    return localizer(name).localize(as_given(name, data), seed)


@cache
def result(name: str, seed: int = 0) -> LocalizerResult:
    """Return what it makes of the planted modules."""
    return localize(name, shard(), seed)


def scores(found: LocalizerResult) -> list[float]:
    """Return the scores alone."""
    return [score.score for score in found.scores]


@cache
def looks_at_the_data(name: str) -> bool:
    """Whether other activations give other scores; a localizer that knows nothing finds nothing."""
    other = replace(shard(), values=shard().values.flip(1))
    return scores(localize(name, other)) != scores(result(name))


class LocalizerContract(Contract):
    """Tests of a localizer with its default parameters."""

    registry: ClassVar[Registry[Any]] = LOCALIZERS

    def test_it_says_how_strengths_follow_and_whether_it_is_random(self, name: str) -> None:
        assert LOCALIZERS[name].weighting in ("score", "equal")
        assert isinstance(LOCALIZERS[name].stochastic, bool)
        assert isinstance(LOCALIZERS[name].uses_effects, bool)

    def test_without_the_effects_or_weights_that_it_uses_it_says_so_and_otherwise_needs_none(
        self, name: str
    ) -> None:
        if LOCALIZERS[name].uses_effects or LOCALIZERS[name].uses_weights:
            with pytest.raises(UserInputError, match=r"LocalizerInput\.(effect|weight)"):
                localizer(name).localize(shard(), 0)
        else:
            assert localizer(name).localize(shard(), 0).scores == result(name).scores

    def test_every_module_gets_one_score_in_the_order_of_the_shard(self, name: str) -> None:
        assert [score.module for score in result(name).scores] == list(shard().modules)
        assert result(name).protocol

    def test_numbers_are_finite_and_within_their_ranges(self, name: str) -> None:
        for score in result(name).scores:
            numbers = {f.name: getattr(score, f.name) for f in fields(score) if f.name != "module"}
            for column, value in numbers.items():
                assert value is None or torch.isfinite(torch.tensor(float(value))), column
            for column in ("roc_auc", "roc_auc_low", "roc_auc_high", "aupr", "f1"):
                assert numbers[column] is None or 0 <= numbers[column] <= 1, column
            if score.roc_auc_low is not None and score.roc_auc_high is not None:
                assert score.roc_auc is not None
                assert score.roc_auc_low <= score.roc_auc <= score.roc_auc_high

    def test_evidence_is_finite_and_on_the_cpu(self, name: str) -> None:
        for what, tensor in result(name).evidence.items():
            assert tensor.device.type == "cpu", what
            assert bool(torch.isfinite(tensor.double()).all()), what

    def test_the_same_seed_gives_the_same_result_whatever_was_drawn_before(self, name: str) -> None:
        torch.manual_seed(12345)
        again = localize(name, shard())
        assert again.scores == result(name).scores
        assert again.evidence.keys() == result(name).evidence.keys()
        for what, tensor in again.evidence.items():
            assert torch.equal(tensor, result(name).evidence[what]), what

    def test_the_seed_changes_the_scores_exactly_where_it_says_so(self, name: str) -> None:
        differ = scores(result(name, seed=1)) != scores(result(name))
        assert differ == LOCALIZERS[name].stochastic

    def test_a_module_scores_the_same_in_any_shard(self, name: str) -> None:
        for modules in ([1], [3, 0]):
            part = localize(name, part_of(shard(), modules))
            expected = [scores(result(name))[module] for module in modules]
            assert scores(part) == pytest.approx(expected, abs=1e-3)

    def test_a_planted_module_comes_first(self, name: str) -> None:
        if not looks_at_the_data(name):
            pytest.skip("it does not look at the activations")
        found = scores(result(name))
        others = [score for module, score in enumerate(found) if module != PLANTED]
        assert found[PLANTED] - max(others) > max(others) - min(others)

    def test_with_every_label_turned_round_the_planted_module_still_comes_first(
        self, name: str
    ) -> None:
        if not looks_at_the_data(name):
            pytest.skip("it does not look at the activations")
        turned = scores(localize(name, replace(shard(), labels=1 - shard().labels)))
        assert max(range(4), key=lambda module: turned[module]) == PLANTED

    def test_the_input_is_left_as_it_was(self, name: str) -> None:
        data = part_of(shard(), [0])
        before = data.values.clone(), data.labels.clone()
        localize(name, data)
        assert torch.equal(data.values, before[0]) and torch.equal(data.labels, before[1])

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_activations_that_are_no_numbers_are_an_error(self, name: str, bad: float) -> None:
        if not looks_at_the_data(name):
            pytest.skip("it does not look at the activations")
        values = shard().values.clone()
        values[1, 7, 3] = bad
        with pytest.raises(
            UserInputError, match="NaN or infinity.*layer 0, head 1.*expected finite"
        ):
            localize(name, replace(shard(), values=values))

    def test_one_label_only_is_an_error(self, name: str) -> None:
        if not looks_at_the_data(name):
            pytest.skip("it does not look at the activations")
        with pytest.raises(UserInputError, match="expected both"):
            localize(name, replace(shard(), labels=torch.ones_like(shard().labels)))

    def test_a_width_that_passes_the_check_can_be_localized(self, name: str) -> None:
        localizer(name).check(WIDTH)
        assert result(name).scores
