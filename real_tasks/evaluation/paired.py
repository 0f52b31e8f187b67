"""Paired comparison of two methods, question by question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from real_tasks.evaluation.bootstrap import bootstrap, mean_by_key


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
    ours, theirs = mean_by_key(method), mean_by_key(baseline)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise ValueError("the two methods have no test question in common")
    gaps = np.array([ours[question] - theirs[question] for question in common])
    found = bootstrap(
        float(gaps.mean()), lambda drawn: gaps[drawn].mean(axis=1), len(gaps), n_resamples, seed
    )
    return Difference(found.value, found.low, found.high, len(gaps))
