"""What a saved or served model is, told from its log-probabilities."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from real_tasks.export.parity import Parity

ROUNDING_SHARE = 0.25
"""A mean difference below this share of what steering does may be rounding, whatever its size."""
STEERING_SHARE = 0.1
"""Rounding has no direction: it leaves the share of the steering that is there this near 0 or 1."""

Verdict = Literal["steered", "unsteered", "other", "too weak to tell"]


@dataclass(frozen=True)
class Reading:
    """A log-probability that was read, in nats; ``at_most`` where only a bound is known."""

    value: float
    at_most: bool = False

    def off(self, expected: float) -> float:
        """Return by how much it is off, at least."""
        if math.isnan(self.value):
            return math.inf
        if self.at_most:
            return max(0.0, expected - self.value)
        return abs(expected - self.value)


Readings = Sequence[Sequence[Reading]]
"""For every case, a reading for every token of its continuation."""


@dataclass(frozen=True)
class Comparison:
    """What a saved or served model turned out to be.

    Attributes:
        from_steered: largest difference from the steered model, nats.
        from_unsteered: largest difference from the unsteered model, nats.
        steering: largest difference between those two, nats.
        share: how much of the steering is there: 0 unsteered, 1 steered.
        tolerance: nats within which two log-probabilities are the same.
    """

    verdict: Verdict
    from_steered: float
    from_unsteered: float
    steering: float
    share: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the model is steered as it should be."""
        return self.verdict == "steered"

    def sentence(self) -> str:
        """Say in words what was found."""
        found = {
            "steered": "It is steered as expected",
            "unsteered": "It is the UNSTEERED model: what steers it was dropped",
            "other": "It is neither the steered nor the unsteered model" + self._share_in_words(),
            "too weak to tell": "Steering changes the log-probabilities by less than the "
            "tolerance, so that steered and unsteered cannot be told apart here",
        }[self.verdict]
        nearest = min(self.from_steered, self.from_unsteered)
        if self.verdict in ("steered", "unsteered") and nearest > self.tolerance:
            found += "; it is off by more than the tolerance, as another number type makes it"
        return (
            f"{found}. Largest difference of a log-probability: {self.from_steered:.2g} nats from "
            f"the steered model, {self.from_unsteered:.2g} from the unsteered one (tolerance "
            f"{self.tolerance:g}; the two are up to {self.steering:.2g} apart)."
        )

    def _share_in_words(self) -> str:
        """Tell steering that is there in part from what no share of it explains."""
        if not 0 <= self.share <= 1 or self.from_steered > self.steering:
            return ": another base model, or a damaged or differently quantised one"
        return f" (of what steering does, {self.share:.0%} is there)"


def compare(parity: Parity, readings: Readings) -> Comparison:
    """Return what a model is whose log-probabilities of the continuations were read.

    The readings are in the order of the cases.
    """
    tolerance = parity.tolerance
    pairs = [
        (reading, steered, unsteered)
        for case, read in zip(parity.cases, readings, strict=True)
        for reading, steered, unsteered in zip(read, case.steered, case.unsteered, strict=True)
    ]
    from_steered = [reading.off(steered) for reading, steered, _ in pairs]
    from_unsteered = [reading.off(unsteered) for reading, _, unsteered in pairs]
    steering = [abs(steered - unsteered) for _, steered, unsteered in pairs]
    share = _share(pairs)
    if max(steering) <= tolerance:
        near = min(max(from_steered), max(from_unsteered)) <= tolerance
        verdict: Verdict = "too weak to tell" if near else "other"
    elif _is_it(from_steered, steering, share - 1, tolerance):
        verdict = "steered"
    else:
        same = _is_it(from_unsteered, steering, share, tolerance)
        verdict = "unsteered" if same else "other"
    return Comparison(
        verdict, max(from_steered), max(from_unsteered), max(steering), share, tolerance
    )


def _is_it(
    off: Sequence[float], steering: Sequence[float], share_off: float, tolerance: float
) -> bool:
    rounding = sum(off) < ROUNDING_SHARE * sum(steering) and abs(share_off) < STEERING_SHARE
    return max(off) <= tolerance or rounding


def _share(pairs: Sequence[tuple[Reading, float, float]]) -> float:
    """Return how far along the way from unsteered to steered the readings lie (least squares)."""
    known = [(read.value - u, s - u) for read, s, u in pairs if not read.at_most]
    length = sum(way * way for _, way in known)
    return sum(gone * way for gone, way in known) / length if length else math.nan
