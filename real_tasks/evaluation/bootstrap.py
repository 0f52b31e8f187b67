"""Estimates with 95 % intervals: percentile bootstraps, differences, pairs; means over runs."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95
CHUNK = 250
"""Resamples at a time, which bounds the memory."""
K = TypeVar("K")
Statistic = Callable[[Float[np.ndarray, "resample place"]], Float[np.ndarray, "resample"]]
"""From drawn places, a row a resample, to the number of each resample."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Mean of method minus baseline over questions, with a percentile bootstrap interval."""

    difference: float
    low: float
    high: float
    n_questions: int


def bootstrap(value: float, statistic: Statistic, size: int, n_resamples: int) -> Estimate:
    """Give a value the interval of its statistic over places of ``range(size)`` drawn again.

    Resamples in which the statistic is not a number are left out; without any, and where the value
    is none itself, the ends are NaN.
    """
    rng = np.random.default_rng(0)
    found = [
        statistic(rng.integers(size, size=(min(CHUNK, n_resamples - start), size)))
        for start in range(0, n_resamples, CHUNK)
    ]
    values = np.concatenate([np.empty(0), *found])
    values = values[np.isfinite(values)]
    if values.size == 0 or math.isnan(value):
        return Estimate(value, math.nan, math.nan)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def mean_by_key(runs: Iterable[Mapping[K, float]]) -> dict[K, float]:
    """Return every key's mean over the runs that have it: of a question over seeds, of a module."""
    found: dict[K, list[float]] = {}
    for run in runs:
        for key, value in run.items():
            found.setdefault(key, []).append(value)
    return {key: fmean(values) for key, values in found.items()}


def mean_estimate(values: Float[np.ndarray, "place"], n_resamples: int) -> Estimate:
    """Return the mean with its interval; NaN of nothing."""
    if values.size == 0:
        return Estimate(math.nan, math.nan, math.nan)
    mean = float(values.mean())
    return bootstrap(mean, lambda drawn: values[drawn].mean(axis=1), len(values), n_resamples)


def paired_difference(
    method: Iterable[Mapping[int, float]], baseline: Iterable[Mapping[int, float]], n_resamples: int
) -> Difference:
    """Compare two methods on the questions that both were tested on.

    Of either there is, for every fold and seed, a value per question; the baseline may have fewer
    seeds. A question's values over seeds are averaged first, so that the interval is over questions
    and not over seeds.

    Raises:
        ValueError: no question is common to both.
    """
    ours, theirs = mean_by_key(method), mean_by_key(baseline)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise ValueError("the two methods have no test question in common")
    gaps = np.array([ours[question] - theirs[question] for question in common])
    found = mean_estimate(gaps, n_resamples)
    return Difference(found.value, found.low, found.high, len(gaps))


def difference_of_means(
    before: Float[np.ndarray, "place"], after: Float[np.ndarray, "place"], n_resamples: int
) -> Estimate:
    """Return the mean after minus the mean before, with its interval.

    NaN stands where there is no number. Places are drawn as they are, so that one with both numbers
    counts as a pair.
    """
    value = float(np.nanmean(after) - np.nanmean(before))
    return bootstrap(
        value,
        lambda drawn: _row_means(after[drawn]) - _row_means(before[drawn]),
        len(before),
        n_resamples,
    )


def difference_interval(before: Estimate, after: Estimate) -> Estimate:
    """Return the difference of two estimates with an interval made of theirs.

    The distances of the ends are added as squares (method of variance estimates recovery: Zou and
    Donner, 2008, doi 10.1002/sim.3095). That takes the two as independent; as scorings share most
    of their questions, the interval is rather too wide than too narrow.
    """
    change = after.value - before.value
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Estimate(change, change - down, change + up)


def overlaps(
    first: Float[np.ndarray, "resample place"],
    second: Float[np.ndarray, "resample place"],
    top_k: int,
) -> Float[np.ndarray, "resample"]:
    """Return which share of the ``top_k`` highest of a row the two have in common."""
    among = []
    for scores in (first, second):
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        mask = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(mask, order, True, axis=1)
        among.append(mask)
    shares: Float[np.ndarray, "resample"] = (among[0] & among[1]).sum(axis=1) / top_k
    return shares


def _row_means(values: Float[np.ndarray, "resample place"]) -> Float[np.ndarray, "resample"]:
    """Means of the numbers of each row; NaN for a row without any."""
    known = np.isfinite(values)
    sums = np.where(known, values, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        means: Float[np.ndarray, "resample"] = sums / known.sum(axis=1)
    return means
