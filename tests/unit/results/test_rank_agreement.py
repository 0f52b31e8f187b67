import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, pearsonr, spearmanr

from real_tasks.results.comparing.agreement import localizer_agreement, rank_agreement, spearman
from real_tasks.results.scores import best_modules, mean_scores, paired, scores_by_run
from real_tasks.vocabulary.types import WHOLE_LAYER, ModuleId
from tests.unit.synthetic_results import score_rows


def by_module(values: Sequence[float]) -> dict[ModuleId, float]:
    return {ModuleId("head", i // 10, i % 10): float(value) for i, value in enumerate(values)}


def related(n: int, correlation: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.normal(size=n)
    return first, correlation * first + math.sqrt(1 - correlation**2) * rng.normal(size=n)


@pytest.mark.parametrize("decimals", [8, 1])
def test_correlations_equal_scipys_with_and_without_ties(decimals: int) -> None:
    first, second = (values.round(decimals) for values in related(90, 0.6))
    found = rank_agreement(by_module(first), by_module(second), 10)
    assert found.spearman == pytest.approx(spearmanr(first, second).statistic)
    assert found.pearson == pytest.approx(pearsonr(first, second).statistic)
    assert found.n_modules == 90


def test_the_interval_is_near_scipys_percentile_bootstrap_over_modules() -> None:
    first, second = related(60, 0.5, seed=3)
    found = rank_agreement(by_module(first), by_module(second), 5, n_resamples=2000)
    theirs = bootstrap(
        (first, second),
        lambda a, b: spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=600,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=0.05)
    assert found.high == pytest.approx(theirs.high, abs=0.05)
    assert found.low < found.spearman < found.high


def test_the_interval_holds_the_planted_correlation_about_as_often_as_it_says() -> None:
    planted = 6 / math.pi * math.asin(0.5 / 2)  # Spearman's of a normal pair of correlation 0.5
    hits = 0
    for seed in range(60):
        first, second = related(120, 0.5, seed)
        found = rank_agreement(by_module(first), by_module(second), 5, n_resamples=300)
        hits += found.low <= planted <= found.high
    assert hits >= 50


def test_the_best_are_shared_as_counted_by_hand_and_by_chance_as_drawn() -> None:
    first, second = [9, 8, 7, 1, 2, 3], [9, 1, 7, 8, 2, 3]
    found = rank_agreement(by_module(first), by_module(second), 3, n_resamples=0)
    assert (found.shared, found.share) == (2, pytest.approx(2 / 3))
    rng = np.random.default_rng(0)
    drawn = [len(set(rng.permutation(6)[:3]) & set(rng.permutation(6)[:3])) for _ in range(4000)]
    assert found.by_chance == pytest.approx(np.mean(drawn), abs=0.05)


def test_equal_scores_come_in_the_order_of_modules_and_k_is_at_most_all() -> None:
    assert best_modules(by_module([1.0, 2.0, 2.0, 2.0]), 2) == [*by_module([0.0] * 4)][1:3]
    found = rank_agreement(by_module([1, 2, 3]), by_module([3, 2, 1]), 48, n_resamples=0)
    assert (found.top_k, found.shared, found.by_chance) == (3, 3, 3.0)


def test_only_modules_that_have_both_scores_count() -> None:
    first, second = by_module([1, 2, 3, 4, 5]), by_module([1, 2, 3, 4, 5])
    del first[ModuleId("head", 0, 0)]
    second[ModuleId("head", 9, 9)] = 100.0
    found = rank_agreement(first, second, 2, n_resamples=0)
    assert (found.n_modules, found.spearman, found.shared) == (4, pytest.approx(1.0), 2)
    with pytest.raises(ValueError, match="no module in common"):
        rank_agreement(first, {ModuleId("layer", 0): 1.0}, 2)


def test_where_nothing_can_be_ranked_the_correlation_is_not_a_number() -> None:
    equal = rank_agreement(by_module([0.3] * 7), by_module(range(7)), 2)
    assert math.isnan(equal.spearman) and math.isnan(equal.low) and math.isnan(equal.pearson)
    two = rank_agreement(by_module([1, 2]), by_module([1, 2]), 1)
    assert math.isnan(two.spearman) and math.isnan(two.high)
    assert math.isnan(rank_agreement(by_module([1, 2, 3]), by_module([1, 2, 3]), 1, 0).low)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 30.0])) == 1.0


def test_scores_without_seeds_go_with_every_seed_of_the_other() -> None:
    runs = {(0, 0): by_module([1]), (0, 1): by_module([2]), (1, 0): by_module([3])}
    found = list(paired(runs, {(0, 0): by_module([7]), (2, 0): by_module([8])}))
    assert [(run, *one.values(), *other.values()) for run, one, other in found] == [
        ((0, 0), 1.0, 7.0),
        ((0, 1), 2.0, 7.0),
    ]


def row(localizer: str, kind: str, layer: int, head: int | None, score: float) -> dict[str, Any]:
    names = {"localizer": localizer, "module_kind": kind, "layer": layer, "head": head}
    return {**names, "fold": 0, "seed": 0, "score": score}


def test_modules_of_another_kind_are_not_taken_for_heads() -> None:
    rows = [row("real", "head", i, 0, float(i)) for i in range(4)]
    rows += [row("causal", "head", i, 0, float(i)) for i in range(4)]
    rows += [row("causal", "layer", i, None, float(-i)) for i in range(4)]
    found = localizer_agreement(rows, ("real", "causal"), 2)
    assert found is not None
    assert (found.mean.n_modules, found.mean.spearman) == (4, pytest.approx(1.0))
    assert ModuleId("layer", 3, WHOLE_LAYER) in scores_by_run(rows, "causal")[0, 0]
    assert localizer_agreement(rows, ("real", "iti"), 2) is None


def test_localizers_are_compared_on_average_and_within_every_fold_and_seed() -> None:
    rows = score_rows(4, 5, folds=2, seeds=3)
    found = localizer_agreement(rows, ("real", "iti"), 6, ("roc_auc", "score"), n_resamples=50)
    assert found is not None
    assert sorted(found.runs) == [(fold, seed) for fold in range(2) for seed in range(3)]
    real = scores_by_run(rows, "real", "roc_auc")
    iti = scores_by_run(rows, "iti")
    for (fold, seed), agreement in found.runs.items():
        modules = sorted(real[fold, seed])
        ours = [real[fold, seed][m] for m in modules], [iti[fold, 0][m] for m in modules]
        assert agreement.spearman == pytest.approx(spearmanr(*ours).statistic)
    means = mean_scores(real.values())
    module = ModuleId("head", 2, 3)
    assert means[module] == pytest.approx(np.mean([run[module] for run in real.values()]))
    assert found.first == means


def test_modules_without_a_number_are_left_out() -> None:
    rows = [row("real", "head", 0, i, float(i)) for i in range(3)]
    rows[1]["score"] = None
    rows[2]["score"] = math.nan
    assert scores_by_run(rows) == {(0, 0): {ModuleId("head", 0, 0): 0.0}}
