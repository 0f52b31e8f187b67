"""Drift between two scorings of the same modules: what has changed in rankings and gains.

Intervals are 95 % percentile bootstraps: of rankings over modules (what other modules of the same
kind would give), of gains over questions. A single module's change of ROC-AUC takes the intervals
of its two ROC-AUCs, which are over questions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from real_tasks.evaluation.bootstrap import (
    Estimate,
    bootstrap,
    difference_interval,
    difference_of_means,
    mean_by_key,
    mean_estimate,
    overlaps,
)
from real_tasks.results.comparing.agreement import RankAgreement, rank_agreement, usual_top_k
from real_tasks.results.scores import mean_scores, scores_by_run
from real_tasks.results.summary import Row
from real_tasks.vocabulary.types import BehaviourData, ModuleId


@dataclass(frozen=True)
class AucDrift:
    """Change of the modules' ROC-AUC, after minus before.

    Attributes:
        mean: mean ROC-AUC over all modules after.
        change: mean change over all modules.
        best_change: mean change over what were the best K before. Part of a fall is regression to
            the mean: they were chosen for a high score.
        largest: the change of the module that changed most, up or down.
        largest_module: that module.
    """

    mean: float
    change: Estimate
    best_change: Estimate
    largest: Estimate
    largest_module: ModuleId


@dataclass(frozen=True)
class RankingDrift:
    """How a localizer's ranking has changed; `auc` is None where it has no ROC-AUC.

    `overlap` is the share of the best K before that are still among them.
    """

    agreement: RankAgreement
    overlap: Estimate
    auc: AucDrift | None


def compared_top_k(steered: Sequence[int], n_modules: int) -> int:
    """Return how many of the best modules to compare: as many as are steered, in the median.

    Where these steer none or all of the ``n_modules`` it is `usual_top_k`.
    """
    some = sorted(count for count in steered if 0 < count < n_modules)
    return some[len(some) // 2] if some else usual_top_k(n_modules)


def ranking_drift(
    before: Sequence[Row], after: Sequence[Row], top_k: int, n_resamples: int
) -> RankingDrift:
    """Compare two scorings by one localizer, each averaged over its folds and seeds.

    Both are rows of the view ``module_scores``, of one run, localizer and kind of module; modules
    are resampled.

    Raises:
        ValueError: no module has both scores.
    """
    old, new = (mean_scores(scores_by_run(rows).values()) for rows in (before, after))
    agreement = rank_agreement(old, new, top_k, n_resamples)
    modules = sorted(old.keys() & new.keys())
    first, second = (
        np.array([scores[one] for one in modules], np.float64) for scores in (old, new)
    )
    return RankingDrift(
        agreement=agreement,
        overlap=bootstrap(
            agreement.share,
            lambda drawn: overlaps(first[drawn], second[drawn], agreement.top_k),
            len(modules),
            n_resamples,
        ),
        auc=_auc_drift(before, after, agreement.best[0], n_resamples),
    )


def _auc_drift(
    before: Sequence[Row], after: Sequence[Row], chosen: Sequence[ModuleId], n_resamples: int
) -> AucDrift | None:
    old, new = (_aucs(rows) for rows in (before, after))
    modules = sorted(old.keys() & new.keys())
    if not modules:
        return None
    changes = {module: difference_interval(old[module], new[module]) for module in modules}
    largest = max(modules, key=lambda module: abs(changes[module].value))
    of_all = np.array([changes[module].value for module in modules])
    of_best = np.array([changes[module].value for module in chosen if module in changes])
    return AucDrift(
        mean=float(np.mean([new[module].value for module in modules])),
        change=mean_estimate(of_all, n_resamples),
        best_change=mean_estimate(of_best, n_resamples),
        largest=changes[largest],
        largest_module=largest,
    )


def _aucs(rows: Sequence[Row]) -> dict[ModuleId, Estimate]:
    """ROC-AUCs, means over folds and seeds; so are their intervals' ends, as if all had one error.

    A module without an interval has one of NaN.
    """
    value, low, high = (
        mean_scores(scores_by_run(rows, column=name).values())
        for name in ("roc_auc", "roc_auc_low", "roc_auc_high")
    )
    return {
        module: Estimate(auc, low.get(module, math.nan), high.get(module, math.nan))
        for module, auc in value.items()
    }


@dataclass(frozen=True)
class GainDrift:
    """What the deployed steering gains, on questions that it was neither found nor tuned on.

    `before`: mean over the baseline's test questions, None if it was not measured there; `after`:
    over all ``n_questions`` unseen questions of the data.
    """

    before: float | None
    after: Estimate
    change: Estimate | None
    n_questions: int


def question_gains(
    steered: Mapping[str, Any],
    unsteered: Mapping[str, Any],
    objective: Sequence[str],
    data: BehaviourData,
) -> dict[str, float]:
    """Return the gain of every question in the mean of the objective's metrics, by `question_key`.

    Questions that both measurements have count, unless a metric is not a number there; none does
    where a metric was not measured. A measurement has ``questions`` and ``per_question``, as
    `measuring.Measurement`.
    """
    if any(name not in one["per_question"] for one in (steered, unsteered) for name in objective):
        return {}
    ours, theirs = (_objective(one, objective) for one in (steered, unsteered))
    gains = {q: ours[q] - theirs[q] for q in ours if q in theirs}
    return {question_key(data, q): gain for q, gain in gains.items() if math.isfinite(gain)}


def question_key(data: BehaviourData, index: int) -> str:
    """Return what tells a question from others in any version of its data: context and text."""
    question = data.questions[index]
    return " ".join(f"{question.context} {question.text}".casefold().split())


def gain_drift(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]], n_resamples: int
) -> GainDrift | None:
    """Compare what steering gained before and gains now; None if nothing was measured now.

    Both are gains by question for every fold and seed, of which the mean is taken first. Questions
    are drawn again from those of either time, so that one that is in both counts as a pair.
    """
    old, new = (mean_by_key(runs) for runs in (before, after))
    if not new:
        return None
    questions = sorted(old.keys() | new.keys())
    first, second = (np.array([one.get(q, math.nan) for q in questions]) for one in (old, new))
    return GainDrift(
        before=float(np.nanmean(first)) if old else None,
        after=mean_estimate(second[np.isfinite(second)], n_resamples),
        change=difference_of_means(first, second, n_resamples) if old else None,
        n_questions=len(new),
    )


def _objective(measurement: Mapping[str, Any], objective: Sequence[str]) -> dict[int, float]:
    columns = [measurement["per_question"][name] for name in objective]
    rows = zip(measurement["questions"], *columns, strict=True)
    return {index: math.fsum(values) / len(values) for index, *values in rows}
