"""Questions and neutral texts in the order and the portions in which a search measures them."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from real_tasks.evaluation.measures import Reading
from real_tasks.evaluation.side_effects import EncodedNeutral, SideEffects, encode_neutral
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.batches import encode

T = TypeVar("T")

SEED = 0
"""Of the order in which questions and texts are taken: the same for all settings and methods."""
FIRST_QUESTIONS = 8
"""Fewest questions that a setting is judged by, and where there are many one in as many."""
LONE_TEXTS = 8
"""Most neutral texts that are read one by one, so that their spread is known."""
FEWEST_LONE_TEXTS = 4

Portions = tuple[tuple[int, ...], ...]
"""Indices: what is measured first, what next."""


def question_portions(n_questions: int, race: bool) -> Portions:
    """Return all at once, or for a race in portions with which the number measured doubles."""
    ends, end = [0], max(FIRST_QUESTIONS, n_questions // FIRST_QUESTIONS)
    while race and end < 3 * n_questions / 4:
        ends.append(end)
        end *= 2
    ends.append(n_questions)
    order = _shuffled(n_questions) if len(ends) > 2 else range(n_questions)
    return tuple(tuple(order[start:stop]) for start, stop in pairwise(ends))


def text_portions(n_texts: int, race: bool) -> Portions:
    """Return all at once, or for a race up to half of the texts one by one, then the others."""
    n_alone = min(LONE_TEXTS, n_texts // 2)
    if not race or n_alone < FEWEST_LONE_TEXTS:
        return (tuple(range(n_texts)),)
    order = _shuffled(n_texts)
    return (*((one,) for one in order[:n_alone]), order[n_alone:])


def _shuffled(n: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(SEED).permutation(n).tolist())


def encoded_texts(
    loaded: LoadedModel, texts: Sequence[str], batch_tokens: int, race: bool
) -> list[EncodedNeutral]:
    """Encode the portions of texts in which a search measures them."""
    if race:  # A text alone must have a token to predict.
        texts = [t for t, row in zip(texts, encode(loaded, texts), strict=True) if len(row) > 1]
    return [
        encode_neutral(loaded, [texts[i] for i in portion], batch_tokens)
        for portion in text_portions(len(texts), race)
    ]


def mean_effects(found: Sequence[tuple[SideEffects, int]]) -> SideEffects:
    """Return the means over all tokens of side effects on several texts."""
    n_tokens = sum(n for _, n in found)
    shares = [n / n_tokens for _, n in found]
    return SideEffects(
        *(
            sum(share * one[i] for share, (one, _) in zip(shares, found, strict=True))
            for i in range(2)
        )
    )


def joined(readings: Sequence[Reading], places: Sequence[int] | None = None) -> Reading:
    """Return the readings as one, each question at its place; as they follow without places."""
    count = sum(len(next(iter(one.per_question.values()), ())) for one in readings)
    order = np.argsort(range(count) if places is None else places)
    shared = [n for n in readings[0].per_question if all(n in one.per_question for one in readings)]

    def in_order(parts: Iterable[Sequence[T]]) -> list[T]:
        values = [value for part in parts for value in part]
        return [values[i] for i in order] if values else []

    return Reading(
        {name: in_order(one.per_question[name] for one in readings) for name in shared},
        tuple(in_order(one.generations for one in readings)),
        tuple(in_order(one.verdicts for one in readings)),
    )
