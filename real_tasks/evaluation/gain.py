"""What steering gains over the unsteered model, question by question."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from real_tasks.evaluation.bootstrap import mean_by_key, paired_difference

OBJECTIVE = "objective"
"""A metric that every behaviour has: the mean of those that K and alpha are chosen by."""

Run = tuple[Mapping[str, Any], Mapping[str, Any], Sequence[int]]
"""Two measurements of one fold and seed, steered and unsteered, each with ``questions`` and
``per_question`` as `measuring.Measurement` has them, and the questions that count."""
_Values = Mapping[int, float]


@dataclass(frozen=True)
class Gain:
    """Means over questions, and the mean difference with its percentile bootstrap interval."""

    steered: float
    unsteered: float
    gain: float
    low: float
    high: float
    n_questions: int


def gains(runs: Sequence[Run], objective: Sequence[str], n_resamples: int) -> dict[str, Gain]:
    """Return the gain in every metric that all runs have, and in `OBJECTIVE`, over all runs.

    A question's values over seeds are averaged first. A question on which a metric is not a number
    is left out of that metric, and a metric that has no number out of the result. The runs are of
    one behaviour; `OBJECTIVE` is the mean of the metrics of ``objective``.
    """
    steered = [_by_question(ours, kept, objective) for ours, _, kept in runs]
    unsteered = [_by_question(theirs, kept, objective) for _, theirs, kept in runs]
    shared = [name for name in steered[0] if all(name in one for one in (*steered, *unsteered))]
    found = {}
    for name in shared:
        pairs = [
            _both_numbers(ours[name], theirs[name])
            for ours, theirs in zip(steered, unsteered, strict=True)
        ]
        if any(ours for ours, _ in pairs):
            found[name] = _gain(pairs, n_resamples)
    return found


def _by_question(
    measurement: Mapping[str, Any], kept: Sequence[int], objective: Sequence[str]
) -> dict[str, dict[int, float]]:
    found = {
        name: dict(zip(measurement["questions"], values, strict=True))
        for name, values in measurement["per_question"].items()
    }
    values = {name: {q: by_question[q] for q in kept} for name, by_question in found.items()}
    goal = {q: math.fsum(values[name][q] for name in objective) / len(objective) for q in kept}
    return {OBJECTIVE: goal, **values}


def _both_numbers(ours: _Values, theirs: _Values) -> tuple[_Values, _Values]:
    numbers = [q for q in ours if not math.isnan(ours[q] + theirs[q])]
    return {q: ours[q] for q in numbers}, {q: theirs[q] for q in numbers}


def _gain(pairs: Sequence[tuple[_Values, _Values]], n_resamples: int) -> Gain:
    steered, unsteered = [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    found = paired_difference(steered, unsteered, n_resamples)
    return Gain(
        steered=_mean_over_questions(steered),
        unsteered=_mean_over_questions(unsteered),
        gain=found.difference,
        low=found.low,
        high=found.high,
        n_questions=found.n_questions,
    )


def _mean_over_questions(runs: Sequence[_Values]) -> float:
    means = mean_by_key(runs)
    return float(np.mean([means[question] for question in sorted(means)]))
