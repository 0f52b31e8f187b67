"""Drift that was planted is found, and intervals are those of an independent implementation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import bootstrap as scipy_bootstrap

from real_tasks.evaluation.bootstrap import (
    Estimate,
    difference_interval,
    difference_of_means,
    mean_estimate,
    overlaps,
)
from real_tasks.results.drift.change import (
    compared_top_k,
    gain_drift,
    question_gains,
    question_key,
    ranking_drift,
)
from real_tasks.results.drift.rows import (
    drift_cells,
    drift_row,
    drift_sentences,
    empty_drift_row,
    exceeded,
    threshold_sentence,
)
from real_tasks.tasks.rescoring.plan import rescored_experiment
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.rescore_config import DriftThresholds, RescoreConfig
from real_tasks.vocabulary.types import Answer, BehaviourData, ModuleId, Question
from storage.tables.schemas import TABLES

N_HEADS = 8


def score_rows(
    aucs: Sequence[float], half: float = 0.05, fold: int = 0, kind: str = "head"
) -> list[dict[str, Any]]:
    return [
        {
            "localizer": "real",
            "module_kind": kind,
            "layer": i // N_HEADS if kind == "head" else i,
            "head": i % N_HEADS if kind == "head" else None,
            "fold": fold,
            "seed": 0,
            "score": auc,
            "roc_auc": auc,
            "roc_auc_low": auc - half,
            "roc_auc_high": auc + half,
        }
        for i, auc in enumerate(aucs)
    ]


def falling(n: int) -> list[float]:
    return np.linspace(0.9, 0.5, n).round(4).tolist()


def question(i: int, context: str = "") -> Question:
    answers = (Answer(f"{i}-0", "yes", 1, True), Answer(f"{i}-1", "no", 0))
    return Question(f"q{i}", f"Is it {i}?", "all", answers, context)


def measurement(values: Sequence[float], first: int = 0) -> dict[str, Any]:
    indices = range(first, first + len(values))
    return {"questions": list(indices), "per_question": {"mc1": list(values)}}


def test_the_same_scores_have_not_drifted() -> None:
    rows = score_rows(falling(24))
    found = ranking_drift(rows, rows, 6, 200)
    assert found.agreement.spearman == pytest.approx(1.0)
    assert found.overlap == Estimate(1.0, 1.0, 1.0)
    assert found.agreement.entered == found.agreement.left == ()
    assert found.auc is not None
    assert found.auc.change == Estimate(0.0, 0.0, 0.0)
    assert found.auc.largest.value == 0.0 and found.auc.largest.low < 0 < found.auc.largest.high


def test_a_head_that_swaps_its_score_with_another_enters_and_the_other_leaves() -> None:
    before = falling(24)
    after = list(before)
    after[2], after[20] = before[20], before[2]
    found = ranking_drift(score_rows(before), score_rows(after), 6, 200)
    assert found.agreement.entered == (ModuleId("head", 2, 4),)
    assert found.agreement.left == (ModuleId("head", 0, 2),)
    assert found.agreement.shared == 5
    assert found.overlap.value == pytest.approx(5 / 6)
    assert found.overlap.low < found.overlap.value <= found.overlap.high
    assert found.auc is not None
    assert found.auc.change.value == pytest.approx(0.0)
    assert found.auc.best_change.value == pytest.approx((before[20] - before[2]) / 6)
    assert found.auc.largest_module in (ModuleId("head", 2, 4), ModuleId("head", 0, 2))
    assert abs(found.auc.largest.value) == pytest.approx(before[2] - before[20])


def test_scores_are_averaged_over_folds_before_they_are_compared() -> None:
    first, second = falling(16), falling(16)[::-1]
    both = score_rows(first) + score_rows(second, fold=1)
    found = ranking_drift(both, score_rows([0.7] * 16), 4, 0)
    assert found.auc is not None
    assert found.auc.change.value == pytest.approx(0.7 - np.mean(first))
    assert math.isnan(found.auc.change.low)


def test_layers_are_compared_like_heads() -> None:
    before, after = falling(6), falling(6)[::-1]
    found = ranking_drift(score_rows(before, kind="layer"), score_rows(after, kind="layer"), 2, 50)
    assert found.agreement.entered == (ModuleId("layer", 5), ModuleId("layer", 4))
    assert found.agreement.spearman == pytest.approx(-1.0)


def test_a_localizer_without_roc_auc_has_ranks_and_no_auc() -> None:
    rows = [row | {"roc_auc": None, "roc_auc_low": None} for row in score_rows(falling(9))]
    assert ranking_drift(rows, rows, 3, 20).auc is None


def test_the_overlap_is_that_of_two_sets_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 20, 12)).astype(float)
    for a, b, share in zip(first, second, overlaps(first, second, 4), strict=True):
        sets = [set(sorted(range(12), key=lambda i: (-v[i], i))[:4]) for v in (a, b)]  # noqa: B023
        assert share == len(sets[0] & sets[1]) / 4


def test_the_interval_of_the_overlap_is_near_scipys_bootstrap() -> None:
    rng = np.random.default_rng(1)
    before = rng.uniform(0.5, 0.9, 60)
    after = before + rng.normal(0, 0.08, 60)
    found = ranking_drift(score_rows(before.tolist()), score_rows(after.tolist()), 15, 2000)
    theirs = scipy_bootstrap(
        (before, after),
        lambda a, b: float(overlaps(a[None], b[None], 15)[0]),
        paired=True,
        vectorized=False,
        n_resamples=600,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found.overlap.low == pytest.approx(theirs.low, abs=0.07)
    assert found.overlap.high == pytest.approx(theirs.high, abs=0.07)


def test_the_interval_of_a_mean_is_near_scipys_bootstrap() -> None:
    values = np.random.default_rng(3).normal(0.02, 0.05, 80)
    found = mean_estimate(values, 2000)
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)
    assert math.isnan(mean_estimate(np.array([]), 10).value)


def test_a_difference_of_independent_estimates_has_the_interval_of_normal_theory() -> None:
    found = difference_interval(Estimate(0.6, 0.5, 0.7), Estimate(0.8, 0.75, 0.85))
    half = 1.96 * math.hypot(0.1 / 1.96, 0.05 / 1.96)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_a_difference_of_independent_estimates_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        a, b = rng.normal(0.6, 0.03), rng.normal(0.7, 0.02)
        one, other = Estimate(a, a - 0.0588, a + 0.0588), Estimate(b, b - 0.0392, b + 0.0392)
        found = difference_interval(one, other)
        hits += found.low <= 0.1 <= found.high
    assert 273 <= hits <= 297


def test_the_gain_of_questions_measured_twice_is_compared_pair_by_pair() -> None:
    rng = np.random.default_rng(6)
    before = rng.normal(0.1, 0.3, 40)
    pairs = [{str(i): float(v) for i, v in enumerate(run)} for run in (before, before - 0.05)]
    found = gain_drift([pairs[0]], [pairs[1]], 500)
    assert found is not None and found.change is not None and found.before is not None
    # All differences are the same, so that a paired interval has no width; the gain's own has.
    assert (found.change.low, found.change.high) == pytest.approx((-0.05, -0.05))
    assert found.after.high - found.after.low > 0.1
    assert found.n_questions == 40


def test_the_interval_of_gains_on_other_questions_is_near_scipys_for_two_samples() -> None:
    rng = np.random.default_rng(7)
    old, new = rng.normal(0.2, 0.3, 90), rng.normal(0.0, 0.3, 110)
    runs = [
        {f"{side}{i}": float(v) for i, v in enumerate(values)}
        for side, values in (("old", old), ("new", new))
    ]
    found = gain_drift(runs[:1], runs[1:], 3000)
    assert found is not None and found.change is not None
    theirs = scipy_bootstrap(
        (new, old),
        lambda a, b, axis=-1: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        n_resamples=3000,
        method="percentile",
        rng=np.random.default_rng(8),
    ).confidence_interval
    assert found.change.value == pytest.approx(new.mean() - old.mean())
    assert (found.change.low, found.change.high) == pytest.approx(
        (theirs.low, theirs.high), abs=0.02
    )


def test_seeds_of_a_question_are_averaged_before_questions_are() -> None:
    runs = [{"a": 1.0, "b": 0.0}, {"a": 0.0}]
    found = gain_drift([], runs, 50)
    assert found is not None
    assert (found.before, found.change) == (None, None)
    assert (found.after.value, found.n_questions) == (0.25, 2)
    assert gain_drift(runs, [], 50) is None
    assert gain_drift(runs, [{}], 50) is None


def test_a_resample_without_a_question_of_one_side_does_not_count() -> None:
    nan = math.nan
    found = difference_of_means(np.array([1.0, nan]), np.array([nan, 3.0]), 200)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_gains_go_by_the_words_of_a_question_wherever_it_stands() -> None:
    old = BehaviourData("b", tuple(question(i) for i in range(4)))
    new = BehaviourData("b", (question(9), *old.questions))
    before = question_gains(measurement([1, 1, 0]), measurement([0, 1, 1]), ["mc1"], old)
    after = question_gains(measurement([1, 1, 0], 1), measurement([0, 1, 1], 1), ["mc1"], new)
    assert before == after == {"is it 0?": 1.0, "is it 1?": 0.0, "is it 2?": -1.0}
    other = BehaviourData("b", (question(0, "A passage."),))
    assert question_key(other, 0) != question_key(old, 0)


def test_questions_without_a_number_and_metrics_that_were_not_measured_are_left_out() -> None:
    data = BehaviourData("b", (question(0), question(1)))
    pair = measurement([1.0, math.nan]), measurement([0.0, 0.0])
    assert question_gains(*pair, ["mc1"], data) == {"is it 0?": 1.0}
    assert question_gains(*pair, ["mc2"], data) == {}


def row_of(
    before: Sequence[float], after: Sequence[float], gains: tuple[float, float] | None = None
) -> dict[str, Any]:
    gain = None
    if gains is not None:
        runs = [[{str(i): value for i in range(5)}] for value in gains]
        gain = gain_drift(runs[0], runs[1], 20)
    found = ranking_drift(score_rows(before), score_rows(after), 6, 50)
    which = {"localizer": "real", "module_kind": "head", "fold": None, "seed": None}
    return drift_row(which, found, gain, 3)


def test_only_what_goes_past_a_threshold_counts_as_drift() -> None:
    same = row_of(falling(24), falling(24), (0.3, 0.3))
    assert exceeded(same, DriftThresholds()) == ()
    turned = row_of(falling(24), falling(24)[::-1], (0.3, 0.05))
    assert exceeded(turned, DriftThresholds()) == (
        "min_spearman",
        "min_overlap",
        "max_auc_drop",
        "max_gain_drop",
    )
    lenient = DriftThresholds(min_spearman=-1, min_overlap=0, max_auc_drop=1, max_gain_drop=0.3)
    assert exceeded(turned, lenient) == ()
    better = row_of(falling(24), [auc + 0.08 for auc in falling(24)], (0.1, 0.4))
    assert exceeded(better, DriftThresholds()) == ()


def test_what_is_not_known_is_no_drift() -> None:
    flat = row_of([0.5] * 24, [0.5] * 24)
    assert flat["spearman"] is None and flat["gain_change"] is None
    assert exceeded(flat, DriftThresholds()) == ()
    assert exceeded(empty_drift_row("real", "head"), DriftThresholds()) == ()


def test_rows_have_the_columns_of_the_table() -> None:
    shared = {"run_id", "baseline_run_id", "compared_run_id", "model", "behaviour", "method"}
    shared |= {"model_id"}
    shared |= {"changed", "what_changed", "exceeded"}
    shared |= {"data_questions", "new_questions", "gone_questions"}
    expected = set(TABLES["score_drift"].schema.names) - shared
    assert set(row_of(falling(9), falling(9))) == expected
    assert set(empty_drift_row("real", "head")) == expected


def test_sentences_say_what_entered_left_and_changed() -> None:
    after = falling(24)
    after[2], after[20] = after[20], after[2]
    row = row_of(falling(24), after, (0.3, 0.05))
    said = " ".join(drift_sentences(row, "real"))
    assert "5 of the best 6 are the same" in said
    assert "Entered the best 6: L2H4. Left: L0H2." in said
    assert "gains 0.050" in said.replace("+", "") and "at the baseline it was +0.300" in said
    assert threshold_sentence((), DriftThresholds()).startswith("No threshold")
    assert "max_gain_drop (0.1)" in threshold_sentence(("max_gain_drop",), DriftThresholds())
    headers, (line,) = drift_cells([row])
    assert len(headers) == len(line) and line[:2] == ["REAL", "all"] and line[3] == "5 of 6"


def test_as_many_are_compared_as_are_steered_in_the_median() -> None:
    assert compared_top_k([4, 16, 8], 40) == 8
    assert compared_top_k([40, 0], 40) == 10
    assert compared_top_k([], 1024) == 48


def test_only_what_the_steering_in_use_needs_is_scored_again() -> None:
    config = ExperimentConfig()
    assert rescored_experiment(config, "real").baselines == ()
    assert rescored_experiment(config, "real").methods == ("unsteered", "real")
    assert [b.name for b in rescored_experiment(config, "iti").baselines] == ["iti"]
    # CAA's layers are ranked by a localizer that ranks heads among the baselines, at great cost.
    assert rescored_experiment(config, "caa").baselines == ()
    for name in ("unsteered", "nothing"):
        with pytest.raises(UserInputError, match="expected one of"):
            rescored_experiment(config, name)
    iti = config.model_copy(update={"localizer": PlugIn(name="iti"), "baselines": ()})
    assert rescored_experiment(iti, "iti").localizer.name == "iti"


def test_only_data_model_and_execution_can_be_changed() -> None:
    fine = ("behaviour.params.path=a.jsonl", "model.revision=v2", "execution.device=cpu")
    assert RescoreConfig(changes=fine).changes == fine
    assert RescoreConfig(changes=("behaviour=demo_options",)).baseline is None
    for wrong in ("localizer=iti", "data.n_folds=3", "model.path", "models.path=x"):
        with pytest.raises(ValidationError):
            RescoreConfig(changes=(wrong,))
