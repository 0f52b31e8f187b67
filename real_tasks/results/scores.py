"""From rows of the view ``module_scores`` to scores by module, for each fold and seed."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from real_tasks.evaluation.bootstrap import mean_by_key
from real_tasks.results.summary import Row
from real_tasks.vocabulary.types import WHOLE_LAYER, ModuleId

_Row = TypeVar("_Row", bound=Row)
_Found = TypeVar("_Found")
RunKey = tuple[int, int]
"""Fold and seed."""
Scores = Mapping[ModuleId, float]


def scores_by_run(
    rows: Iterable[Row], localizer: str | None = None, column: str = "score"
) -> dict[RunKey, dict[ModuleId, float]]:
    """Return the scores by module for each fold and seed, of one localizer or of all rows.

    Modules without a finite number are left out.
    """
    runs: dict[RunKey, dict[ModuleId, float]] = {}
    for row in rows:
        if localizer is None or row["localizer"] == localizer:
            value = row[column]
            if value is not None and math.isfinite(value):
                run = runs.setdefault((int(row["fold"]), int(row["seed"])), {})
                run[module_of(row)] = float(value)
    return dict(sorted(runs.items()))


def rows_of(rows: Iterable[_Row], localizer: str, kind: str) -> list[_Row]:
    """Return the rows of one localizer and kind of module."""
    return [r for r in rows if (r["localizer"], r["module_kind"]) == (localizer, kind)]


def module_of(row: Row) -> ModuleId:
    """Return the module that a row is about; one without ``module_kind`` is about a head."""
    head = WHOLE_LAYER if row["head"] is None else int(row["head"])
    return ModuleId(row.get("module_kind", "head"), int(row["layer"]), head)


def mean_scores(runs: Iterable[Scores]) -> dict[ModuleId, float]:
    """Average each module's score over the runs that have one."""
    return dict(sorted(mean_by_key(runs).items()))


def best_modules(scores: Scores, top_k: int | None = None) -> list[ModuleId]:
    """Return the ``top_k`` modules of the highest scores, or all, best first; equals in order."""
    return sorted(scores, key=lambda module: (-scores[module], module))[:top_k]


def paired(
    first: Mapping[RunKey, _Found], second: Mapping[RunKey, _Found]
) -> Iterator[tuple[RunKey, _Found, _Found]]:
    """Pair what was found in a fold and seed; what has no seeds goes with every seed of the other.

    Without seeds is what has a single one in the fold.
    """
    for run in sorted(first.keys() | second.keys()):
        one, other = _of_run(first, run), _of_run(second, run)
        if one is not None and other is not None:
            yield run, one, other


def _of_run(runs: Mapping[RunKey, _Found], run: RunKey) -> _Found | None:
    of_fold = [found for (fold, _), found in runs.items() if fold == run[0]]
    return runs.get(run, of_fold[0] if len(of_fold) == 1 else None)
