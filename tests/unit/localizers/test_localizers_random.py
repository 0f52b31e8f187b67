import torch

from real_tasks.contract.planted import part_of, planted_input
from real_tasks.localizers import LOCALIZERS

RANDOM = LOCALIZERS["random"]


def scores(indices: list[int], seed: int) -> list[float]:
    data = part_of(planted_input(64, relevant=[], n_questions=2, d=2), indices)
    return [row.score for row in RANDOM(RANDOM.Params()).localize(data, seed).scores]


def test_scores_repeat_themselves_and_change_with_the_seed() -> None:
    everything = list(range(64))
    assert scores(everything, 1) == scores(everything, 1)
    assert not set(scores(everything, 1)) & set(scores(everything, 2))


def test_a_module_scores_the_same_in_any_shard() -> None:
    assert scores([5, 9], 3) == [scores(list(range(64)), 3)[index] for index in (5, 9)]


def test_scores_are_spread_over_the_unit_interval() -> None:
    values = torch.tensor(scores(list(range(64)), 0))
    assert 0 <= float(values.min()) < 0.15 and 0.85 < float(values.max()) < 1
    assert abs(float(values.mean()) - 0.5) < 0.12


def test_the_result_says_that_nothing_was_fitted() -> None:
    data = planted_input(2, relevant=[], n_questions=2, d=2)
    result = RANDOM(RANDOM.Params()).localize(data, 0)
    assert result.protocol == "none" and not result.evidence
    assert result.scores[0].roc_auc is None and result.scores[0].collapsed is None
