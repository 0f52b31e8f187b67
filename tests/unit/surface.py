"""What the mere wording of answers gives away, and which texts are nearly the same."""

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

WORDS = 3
"""Words of a shingle."""


def length_auc(texts: Sequence[str], labels: Sequence[int]) -> float:
    """Return how well the number of characters alone tells label 1."""
    return float(roc_auc_score(labels, [len(text) for text in texts]))


def word_auc(
    texts: Sequence[str], labels: Sequence[int], groups: Sequence[int], strata: Sequence[int]
) -> float:
    """Return how well a bag of words tells label 1 on groups that it was not fitted to.

    Strata are spread evenly over five folds; the mean of three ways to make them.
    """
    words = CountVectorizer().fit_transform(texts)
    aucs = []
    for seed in range(3):
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        told = cross_val_predict(
            LogisticRegression(max_iter=1000),
            words,
            labels,
            cv=list(folds.split(words, strata, groups)),
            method="decision_function",
        )
        aucs.append(roc_auc_score(labels, told))
    return float(np.mean(aucs))


def near_duplicates(
    texts: Sequence[str], others: Sequence[str] | None = None, share: float = 0.4
) -> list[tuple[str, str]]:
    """Return the pairs, among texts or of texts and others, that share so many of their shingles.

    The share is that of the shingles of both among those of either (Jaccard's index).
    """
    mine = [(text, _shingles(text)) for text in texts]
    theirs = [(text, _shingles(text)) for text in others or ()]
    pairs = combinations(mine, 2) if others is None else ((a, b) for a in mine for b in theirs)
    return [
        (one, other)
        for (one, first), (other, second) in pairs
        if len(first & second) >= share * len(first | second)
    ]


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[n : n + WORDS]) for n in range(max(1, len(words) - WORDS + 1))}
