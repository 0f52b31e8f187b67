"""Folds over questions, never over single answers."""

import numpy as np

from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import FoldSplit


def fold_of_questions(n_questions: int, n_folds: int) -> list[int]:
    """Return each question's fold: contiguous parts of near-equal size, in question order."""
    parts = np.array_split(np.arange(n_questions), n_folds)
    return [fold for fold, part in enumerate(parts) for _ in part]


def split(n_questions: int, fold: int, config: DataConfig) -> FoldSplit:
    """Return the split whose test questions are ``fold``.

    The rest is permuted with the seed ``config.split_seed``; its last questions are for validation,
    as in REAL's release. At least one is left on either side.
    """
    folds = np.array(fold_of_questions(n_questions, config.n_folds))
    rest = np.random.default_rng(config.split_seed).permutation(np.flatnonzero(folds != fold))
    n_validation = min(max(round(config.validation_share * len(rest)), 1), len(rest) - 1)
    return FoldSplit(
        train=tuple(sorted(rest[:-n_validation].tolist())),
        validation=tuple(sorted(rest[-n_validation:].tolist())),
        test=tuple(np.flatnonzero(folds == fold).tolist()),
    )
