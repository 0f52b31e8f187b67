from dataclasses import replace

import numpy as np
import pytest
import torch

from real_tasks.contract.planted import planted_input
from real_tasks.evaluation.answers.effects import Effects
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.loading import prepare
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import LocalizerInput, ModuleId
from tests.unit.tiny_models import random_data, tiny_llama, tiny_tokenizer

CAUSAL = LOCALIZERS["causal"]
LAYER = ModuleId("layer", 0)


def with_effect(data: LocalizerInput, gains: list[float]) -> tuple[LocalizerInput, list[tuple]]:
    """A model in which pushing module m along all-ones has a gain of ``gains[m]`` a unit."""
    calls: list[tuple[ModuleId, torch.Tensor]] = []

    def effect(module: ModuleId, displacement: torch.Tensor) -> float:
        calls.append((module, displacement))
        return gains[data.modules.index(module)] * float(displacement.sum())

    return replace(data, effect=effect), calls


def test_every_module_is_pushed_alpha_sigmas_along_its_mean_difference() -> None:
    data, calls = with_effect(planted_input(3, relevant=[1]), [1.0, 1.0, 1.0])
    result = CAUSAL(CAUSAL.Params(alpha=2.5)).localize(data, seed=0)
    values, labels = data.values[:, data.train].double().numpy(), data.labels[data.train].numpy()
    assert [module for module, _ in calls] == list(data.modules)
    for index, (_, push) in enumerate(calls):
        gap = values[index][labels == 1].mean(axis=0) - values[index][labels == 0].mean(axis=0)
        theta = gap / np.linalg.norm(gap)
        expected = 2.5 * np.std(values[index] @ theta) * theta
        assert push.numpy() == pytest.approx(expected, abs=1e-4)
        assert result.scores[index].score == pytest.approx(expected.sum(), abs=1e-3)


def test_validation_answers_do_not_move_the_push() -> None:
    data, calls = with_effect(planted_input(2, relevant=[1]), [1.0, 1.0])
    CAUSAL(CAUSAL.Params()).localize(data, seed=0)
    values = data.values.clone()
    values[:, ~data.train] += 100.0
    CAUSAL(CAUSAL.Params()).localize(replace(data, values=values), seed=0)
    for (_, push), (_, again) in zip(calls[:2], calls[2:], strict=True):
        assert torch.equal(push, again)


def test_a_module_that_tells_answers_apart_but_does_nothing_scores_nothing() -> None:
    data, _ = with_effect(planted_input(4, relevant=[1, 3], strength=4.0), [0.0, 0.0, 0.0, 1.0])
    scores = [row.score for row in CAUSAL(CAUSAL.Params()).localize(data, seed=0).scores]
    assert scores[:3] == [0.0, 0.0, 0.0]
    assert scores[3] != 0.0


def test_a_harmful_push_scores_below_zero_and_has_no_auc() -> None:
    data, calls = with_effect(planted_input(1, relevant=[0]), [1.0])
    score = CAUSAL(CAUSAL.Params()).localize(data, seed=0).scores[0]
    sign = float(torch.sign(calls[0][1].sum()))
    harmful, _ = with_effect(data, [-sign])
    assert CAUSAL(CAUSAL.Params()).localize(harmful, seed=0).scores[0].score < 0
    assert score.roc_auc is None and score.aupr is None
    assert CAUSAL.weighting == "equal"


def test_without_a_model_it_says_what_it_needs() -> None:
    with pytest.raises(UserInputError, match=r"needs the model.*LocalizerInput\.effect"):
        CAUSAL(CAUSAL.Params()).localize(planted_input(1, relevant=[0]), seed=0)


def test_a_push_that_overflows_is_told_with_the_alpha_to_lower() -> None:
    loaded = prepare(tiny_llama().half(), tiny_tokenizer())
    effect = Effects(loaded, random_data(4), [0, 1], 1000)
    wide = torch.full((loaded.shape.d_model,), 3e5)
    data = replace(planted_input(2, relevant=[1]), effect=lambda *_: effect(LAYER, wide))
    with pytest.raises(
        UserInputError, match=r"causal, with its alpha of 3: .*computed with in float16"
    ):
        CAUSAL(CAUSAL.Params(alpha=3)).localize(data, seed=0)
