"""Folds over questions, never over single answers; questions that a pair joins stay together."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import FoldSplit

T = TypeVar("T")


def evenly_spaced(items: Sequence[T], limit: int | None) -> tuple[T, ...]:
    """Return at most so many of some items, evenly spaced, as files are often sorted."""
    n = len(items) if limit is None else min(limit, len(items))
    return tuple(items[i * len(items) // n] for i in range(n))


def fold_of_questions(groups: Sequence[int], n_folds: int) -> list[int]:
    """Return each question's fold: contiguous parts of near-equal numbers of groups, in order."""
    parts = np.array_split(np.arange(max(groups, default=-1) + 1), n_folds)
    folds = [fold for fold, part in enumerate(parts) for _ in part]
    return [folds[group] for group in groups]


def split(groups: Sequence[int], fold: int, config: DataConfig) -> FoldSplit:
    """Return the split whose test questions are ``fold``.

    The other groups are permuted with the seed ``config.split_seed``; the last are for validation,
    as in REAL's release. At least one is left on either side.

    Args:
        groups: of each question, see `real_tasks.questions.groups`.
        fold: from 0.
        config: how many folds, and how large the validation part is.
    """
    folds = np.array(fold_of_questions(groups, config.n_folds))
    rest = np.unique(np.array(groups)[folds != fold])
    rest = np.random.default_rng(config.split_seed).permutation(rest)
    n_validation = min(max(round(config.validation_share * len(rest)), 1), len(rest) - 1)
    return FoldSplit(
        train=tuple(np.flatnonzero(np.isin(groups, rest[:-n_validation])).tolist()),
        validation=tuple(np.flatnonzero(np.isin(groups, rest[-n_validation:])).tolist()),
        test=tuple(np.flatnonzero(folds == fold).tolist()),
    )
