"""Whether grids of strengths were long enough, by what was chosen and what was tried."""

from collections.abc import Sequence

from real_tasks.results.rows import Evaluation
from real_tasks.results.summary import counted_kl

_STRENGTHS = "name {} strengths (evaluation.alphas, or strengths of a method that has its own)"
SMALLER, LARGER = _STRENGTHS.format("smaller"), _STRENGTHS.format("larger")
FAR_BELOW = 0.5
"""Share of the cap on KL: what costs less is far from it."""


def grid_warnings(
    name: str,
    strengths: Sequence[float],
    highest: float,
    max_kl: float,
    evaluations: Sequence[Evaluation],
) -> list[str]:
    """Say of a method where its grid of strengths was too short, at either end.

    There is none where nothing is steered; it ends at the ``highest`` strength that has a meaning.
    The evaluations are those on all folds, with all seeds.
    """
    if not strengths or not evaluations:
        return []
    lowest = min(row["alpha"] for one in evaluations for row in _steered(one))
    if not all(one["fits_cap"] for one in evaluations):
        return [
            f"{name}: no strength, down to {lowest:g}, stays under the cap on KL in some fold, so "
            f"that nothing is steered there; raise evaluation.max_kl, or {SMALLER}"
        ]
    if lowest < min(strengths):
        return [
            f"{name}: no strength of its grid stays under the cap on KL in some fold, where halves "
            f"of the smallest were tried, down to {lowest:g}; {SMALLER}"
        ]
    largest = max(strengths)
    far = all(
        counted_kl(row["metrics"]) < FAR_BELOW * max_kl
        for one in evaluations
        for row in _steered(one)
        if (row["top_k"], row["alpha"]) == (one["top_k"], one["alpha"])
    )
    if far and largest < highest and all(one["alpha"] == largest for one in evaluations):
        return [
            f"{name}: in every fold the largest strength of its grid, {largest:g}, is the best, "
            f"far below the cap on KL: larger ones may gain more; {LARGER}"
        ]
    return []


def _steered(evaluation: Evaluation) -> list[Evaluation]:
    return [row for row in evaluation["validation"] if row["alpha"] is not None]
