"""Folds over questions, never over single answers; questions that a pair joins stay together."""

from collections.abc import Sequence

import numpy as np

from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import FoldSplit, Question


def question_groups(questions: Sequence[Question]) -> list[int]:
    """Return each question's group, numbered from 0 as they first appear.

    Questions are of one group where an answer of each has the same name of a pair, or where others
    join them so; without such names each is one of its own.
    """
    groups, of_pair = list(range(len(questions))), dict[str, int]()
    for index, question in enumerate(questions):
        names = {answer.pair for way in question.presentations for answer in way.answers} - {""}
        joined = {of_pair[name] for name in names if name in of_pair}
        group = min(joined, default=index)
        groups[index] = group
        if len(joined) > 1:
            groups = [group if one in joined else one for one in groups]
            of_pair = {name: group if one in joined else one for name, one in of_pair.items()}
        of_pair |= dict.fromkeys(names, group)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]


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
        groups: of each question, see `question_groups`.
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
