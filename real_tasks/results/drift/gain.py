"""Change of what the deployed steering gains, question by question."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from real_tasks.statistics.bootstrap import (
    Estimate,
    difference_of_means,
    mean_by_key,
    mean_estimate,
)
from real_tasks.vocabulary.types import BehaviourData


@dataclass(frozen=True)
class GainDrift:
    """What the deployed steering gains, on questions that it was neither found nor tuned on.

    Attributes:
        before: mean gain over the baseline's test questions; None if it was not measured there.
        after: mean gain over all unseen questions of the data.
        change: after minus before.
        n_questions: questions measured after.
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
    where a metric was not measured.

    Args:
        steered: ``questions`` and ``per_question``, as in `measuring.Measurement`.
        unsteered: likewise.
        objective: the metrics that K and alpha were chosen by.
        data: the behaviour that the questions are of.
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

    A question's values over folds and seeds are averaged first. Questions are drawn again from
    those of either time, so that one that is in both counts as a pair.

    Args:
        before: gains by question, for every fold and seed.
        after: likewise.
        n_resamples: bootstrap resamples of questions.
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
