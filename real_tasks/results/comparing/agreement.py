"""How far two rankings of the same modules agree: rank correlation, and the best K of each."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from real_tasks.evaluation.bootstrap import bootstrap
from real_tasks.results.scores import (
    RunKey,
    Scores,
    best_modules,
    mean_scores,
    paired,
    scores_by_run,
)
from real_tasks.results.summary import Row
from real_tasks.vocabulary.types import ModuleId

RESAMPLES = 1000
PUBLISHED_TOP_K = 48
"""How many modules REAL steers (paper, section 4)."""


@dataclass(frozen=True)
class RankAgreement:
    """Agreement of two scores of the same modules.

    Attributes:
        n_modules: modules that both score.
        spearman: rank correlation; NaN where all of a ranking's scores are equal, or fewer than
            three modules have both.
        low: lower end of its 95 % interval, a percentile bootstrap over modules: what other modules
            of the same kind would give, not what other questions would. NaN without resamples.
        high: upper end of that interval.
        pearson: linear correlation of the scores themselves; NaN as `spearman`.
        top_k: how many of the best are compared.
        best: the best ``top_k`` modules of each, best first; equals come in the order of modules.
    """

    n_modules: int
    spearman: float
    low: float
    high: float
    pearson: float
    top_k: int
    best: tuple[tuple[ModuleId, ...], tuple[ModuleId, ...]]

    @property
    def shared(self) -> int:
        """Modules among the best ``top_k`` of both."""
        return len(set(self.best[0]) & set(self.best[1]))

    @property
    def entered(self) -> tuple[ModuleId, ...]:
        """Modules among the best of the second only, best first."""
        return tuple(module for module in self.best[1] if module not in self.best[0])

    @property
    def left(self) -> tuple[ModuleId, ...]:
        """Modules among the best of the first only, best first."""
        return tuple(module for module in self.best[0] if module not in self.best[1])

    @property
    def share(self) -> float:
        """Share of the best ``top_k`` that both have."""
        return self.shared / self.top_k

    @property
    def by_chance(self) -> float:
        """Modules that two draws of ``top_k`` share on average: top_k squared / n_modules."""
        return self.top_k**2 / self.n_modules


@dataclass(frozen=True)
class LocalizerAgreement:
    """Agreement of two localizers' scores: averaged over folds and seeds, and within each of these.

    ``first`` and ``second`` are the averaged scores.
    """

    mean: RankAgreement
    runs: Mapping[RunKey, RankAgreement]
    first: Scores
    second: Scores


def rank_agreement(
    first: Scores, second: Scores, top_k: int, n_resamples: int = RESAMPLES
) -> RankAgreement:
    """Compare two scores, higher is better, over the modules that have both.

    At most ``top_k`` modules are the best of each; 0 resamples (of modules) leave the interval out.

    Raises:
        ValueError: no module has both scores.
    """
    modules = sorted(first.keys() & second.keys())
    if not modules:
        raise ValueError("the two rankings have no module in common; expected the same modules")
    a, b = (np.array([scores[m] for m in modules], dtype=np.float64) for scores in (first, second))
    top_k = min(top_k, len(modules))
    best = (best_modules({m: scores[m] for m in modules}, top_k) for scores in (first, second))
    found = bootstrap(
        spearman(a, b),
        lambda drawn: _rank_correlation(a[drawn], b[drawn]),
        len(modules),
        n_resamples if len(modules) > 2 else 0,
    )
    return RankAgreement(
        n_modules=len(modules),
        spearman=found.value,
        low=found.low,
        high=found.high,
        pearson=float(_correlation(a[None], b[None])[0]) if len(modules) > 2 else math.nan,
        top_k=top_k,
        best=(tuple(next(best)), tuple(next(best))),
    )


def spearman(first: Float[np.ndarray, "module"], second: Float[np.ndarray, "module"]) -> float:
    """Return Spearman's rank correlation; NaN for fewer than three modules, or without variance."""
    if len(first) < 3:
        return math.nan
    return float(_rank_correlation(first[None], second[None])[0])


def localizer_agreement(
    rows: Iterable[Row],
    names: tuple[str, str],
    top_k: int | None = None,
    columns: tuple[str, str] = ("score", "score"),
    n_resamples: int = RESAMPLES,
) -> LocalizerAgreement | None:
    """Compare two localizers' scores of modules; None where no module is in common.

    The rows are of the view ``module_scores``, of one run; ``columns`` are which of their numbers
    is compared. Of the best `usual_top_k` are compared, unless ``top_k`` says how many.
    """
    rows = list(rows)
    first, second = (scores_by_run(rows, *which) for which in zip(names, columns, strict=True))
    pairs = [
        (run, one, other) for run, one, other in paired(first, second) if one.keys() & other.keys()
    ]
    if not pairs:
        return None
    means = mean_scores(first.values()), mean_scores(second.values())
    if top_k is None:
        top_k = usual_top_k(len(means[0].keys() & means[1].keys()))
    return LocalizerAgreement(
        mean=rank_agreement(*means, top_k, n_resamples),
        runs={run: rank_agreement(one, other, top_k, n_resamples) for run, one, other in pairs},
        first=means[0],
        second=means[1],
    )


def usual_top_k(n_modules: int) -> int:
    """Return REAL's K, or a quarter of the modules where that is less, at least 1."""
    return max(1, min(PUBLISHED_TOP_K, n_modules // 4))


def _rank_correlation(
    first: Float[np.ndarray, "resample module"], second: Float[np.ndarray, "resample module"]
) -> Float[np.ndarray, "resample"]:
    return _correlation(rankdata(first, axis=1), rankdata(second, axis=1))


def _correlation(
    first: Float[np.ndarray, "resample module"], second: Float[np.ndarray, "resample module"]
) -> Float[np.ndarray, "resample"]:
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (first, second))
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    # Equal scores leave a rounding error of their mean, not a variance.
    varies = (np.ptp(first, axis=1) > 0) & (np.ptp(second, axis=1) > 0) & (size > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Float[np.ndarray, "resample"] = np.where(
            varies, (a * b).sum(axis=1) / size, math.nan
        )
    return found
