"""Paired comparison of two methods, question by question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of method minus baseline over questions, with a percentile bootstrap interval."""

    difference: float
    low: float
    high: float
    n_questions: int


def paired_difference(
    method: Sequence[Mapping[int, float]],
    baseline: Sequence[Mapping[int, float]],
    n_resamples: int,
    seed: int = 0,
) -> Difference:
    """Compare two methods on the questions that both were tested on.

    Args:
        method: for every fold and seed, a value per question index; a question's values over seeds
            are averaged first, so that the interval is over questions and not over seeds.
        baseline: likewise; it may have fewer seeds.
        n_resamples: bootstrap resamples of questions.
        seed: seed of the resampling.

    Raises:
        ValueError: no question is common to both.
    """
    ours, theirs = _by_question(method), _by_question(baseline)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise ValueError("the two methods have no test question in common")
    gaps = np.array([ours[question] - theirs[question] for question in common])
    draws = np.random.default_rng(seed).integers(len(gaps), size=(n_resamples, len(gaps)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(gaps[draws].mean(axis=1), [tail, 100 - tail])
    return Difference(float(gaps.mean()), float(low), float(high), len(gaps))


def _by_question(runs: Sequence[Mapping[int, float]]) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run in runs:
        for question, value in run.items():
            values.setdefault(question, []).append(value)
    return {question: float(np.mean(found)) for question, found in values.items()}
