"""Activations of a behaviour's answers, at the tokens that a reading says."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from real_tasks.models.loading import LoadedModel
from real_tasks.reading.activations import activations_at, check_vocabulary
from real_tasks.reading.positions_read import positions_read
from real_tasks.reading.prompts import reading_text
from real_tasks.vocabulary.types import Answer, BehaviourData, ModuleKind, Question, Reading


def activations_of(
    loaded: LoadedModel,
    data: BehaviourData,
    pairs: Sequence[tuple[Question, Answer]],
    batch_tokens: int,
    kind: ModuleKind = "head",
    reading: Reading = "last",
    largest: float = math.inf,
) -> Float[Tensor, "sample layer module d"]:
    """Return what a model's modules have at each answer; see `activations_at` for sizes and errors.

    The pairs are questions, each with one of its answers: a shard of samples; the behaviour's
    template makes the texts. ``reading`` says over which tokens the mean is taken.
    """
    texts = [reading_text(loaded, data, *pair) for pair in pairs]
    check_vocabulary(loaded, texts)
    positions = None
    if reading != "last":
        # Marks are places in an answer, which ends its text.
        starts = [
            len(text) - len(answer.text) for text, (_, answer) in zip(texts, pairs, strict=True)
        ]
        marks = [
            [(start + begin, start + end) for begin, end in answer.marks]
            for start, (_, answer) in zip(starts, pairs, strict=True)
        ]
        positions = positions_read(loaded, data, pairs, reading, marks)
    return activations_at(loaded, texts, positions, batch_tokens, kind, largest)
