"""From table rows to maps ``[layer, head]``: scores, and selected modules."""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float

from real_tasks.results.scores import RunKey
from real_tasks.results.summary import Row

ScoreMap = Float[np.ndarray, "layer head"]
SelectionMap = Bool[np.ndarray, "layer head"]


def grid_shape(rows: Iterable[Row]) -> tuple[int, int]:
    """Return the numbers of layers and heads that hold every module of ``rows``.

    Whole layers (no head, or -1) take one column.

    Raises:
        ValueError: there are no rows.
    """
    places = [_place(row) for row in rows]
    if not places:
        raise ValueError("no rows of modules; expected at least one to draw a map of")
    return max(layer for layer, _ in places) + 1, max(head for _, head in places) + 1


def _place(row: Row) -> tuple[int, int]:
    return int(row["layer"]), max(int(row["head"] or 0), 0)


def score_maps(
    rows: Iterable[Row], localizer: str, shape: tuple[int, int], column: str = "roc_auc"
) -> dict[RunKey, ScoreMap]:
    """Return a map of ``column`` for each fold and seed of ``localizer``; NaN where it is None.

    ``rows`` have the columns of the view ``module_scores``.
    """
    maps: dict[RunKey, ScoreMap] = {}
    for row in rows:
        if row["localizer"] == localizer:
            grid = maps.setdefault((row["fold"], row["seed"]), np.full(shape, np.nan))
            value = row.get(column)
            grid[_place(row)] = np.nan if value is None else value
    return dict(sorted(maps.items()))


def selection_maps(
    rows: Iterable[Row], method: str, shape: tuple[int, int]
) -> dict[RunKey, SelectionMap]:
    """Return a map of the modules that ``method`` steers for each fold and seed.

    ``rows`` have the columns of the view ``selected_modules``.
    """
    maps: dict[RunKey, SelectionMap] = {}
    for row in rows:
        if row["method"] == method:
            grid = maps.setdefault((row["fold"], row["seed"]), np.zeros(shape, dtype=bool))
            grid[_place(row)] = True
    return dict(sorted(maps.items()))


def mean_map(
    maps: Mapping[RunKey, Float[np.ndarray, "layer head"] | Bool[np.ndarray, "layer head"]],
) -> ScoreMap:
    """Average maps over folds and seeds, cell by cell over those that have a value.

    Raises:
        ValueError: there are no maps.
    """
    if not maps:
        raise ValueError("no maps to average; expected one for each fold and seed")
    stack = np.stack([grid.astype(np.float64) for grid in maps.values()])
    present = ~np.isnan(stack)
    count = present.sum(axis=0)
    total = np.where(present, stack, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def extreme_modules(scores: ScoreMap) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (layer, head) of the best and of the worst module, the first of equals.

    Raises:
        ValueError: no score is finite.
    """
    if not np.isfinite(scores).any():
        raise ValueError("every score is NaN; expected at least one finite score")
    best = np.unravel_index(np.nanargmax(scores), scores.shape)
    worst = np.unravel_index(np.nanargmin(scores), scores.shape)
    return (int(best[0]), int(best[1])), (int(worst[0]), int(worst[1]))
