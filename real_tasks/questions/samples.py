"""The samples of a behaviour: every answer of every question, in question order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from real_tasks.questions.groups import question_groups
from real_tasks.vocabulary.types import (
    Answer,
    BehaviourData,
    FoldSplit,
    LocalizerInput,
    ModuleId,
    Question,
)


@dataclass(frozen=True)
class Sample:
    """One answer, with the question as it was put, and that question's place in the data."""

    question_index: int
    question: Question
    answer: Answer


def samples_of(data: BehaviourData) -> list[Sample]:
    """Return all samples; their order is that of stored activations."""
    return [
        Sample(index, question, answer)
        for index, asked in enumerate(data.questions)
        for question in asked.presentations
        for answer in question.answers
    ]


def rows_of_questions(samples: Sequence[Sample], questions: Iterable[int]) -> list[int]:
    """Return the places of the samples that belong to ``questions``."""
    wanted = set(questions)
    return [row for row, sample in enumerate(samples) if sample.question_index in wanted]


def pairs_of(samples: Sequence[Sample], paired: bool) -> tuple[int, ...]:
    """Return each sample's partner, by its place among these, or -1; see `BehaviourData.paired`."""
    together: dict[object, list[int]] = {}
    for place, one in enumerate(samples):
        if one.answer.pair or paired:
            presented = (one.question_index, one.question.question_id)
            together.setdefault(one.answer.pair or presented, []).append(place)
    partners = [-1] * len(samples)
    for places in together.values():
        aligned, violating = ([p for p in places if samples[p].answer.label == n] for n in (1, 0))
        if len(aligned) == len(violating):
            for mine, other in zip(aligned, violating, strict=True):
                partners[mine], partners[other] = other, mine
    return tuple(partners)


def numbered(names: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return each name's number, -1 of an empty one, and the names in the order of the numbers."""
    known = tuple(sorted({*names} - {""}))
    return tuple(known.index(name) if name else -1 for name in names), known


def localizer_input(
    modules: tuple[ModuleId, ...],
    values: Float[np.ndarray, "sample module d"],
    data: BehaviourData,
    split: FoldSplit,
    device: torch.device,
    beside: Float[np.ndarray, "sample one d_model"] | None = None,
) -> LocalizerInput:
    """Return what a localizer may see of one fold: training and validation questions, no others."""
    samples = samples_of(data)
    rows = rows_of_questions(samples, (*split.train, *split.validation))
    seen = [samples[row] for row in rows]
    train, groups = set(split.train), question_groups(data.questions)
    chosen = torch.from_numpy(np.ascontiguousarray(values[rows].swapaxes(0, 1)))
    return LocalizerInput(
        modules=modules,
        values=chosen.float().to(device),
        labels=torch.tensor([one.answer.label for one in seen], device=device),
        questions=torch.tensor([groups[one.question_index] for one in seen], device=device),
        train=torch.tensor([one.question_index in train for one in seen], device=device),
        pairs=pairs_of(seen, data.paired),
        beside=None if beside is None else torch.from_numpy(beside[rows, 0]).float().to(device),
    )


def with_shuffled_labels(data: BehaviourData, seed: int) -> BehaviourData:
    """Return the data with labels permuted among each question's answers: a null control.

    Every question keeps as many aligned answers as it had; the first of them becomes the best.
    """
    rng = np.random.default_rng(seed)
    questions = (_shuffled(question, rng) for question in data.questions)
    return replace(data, questions=tuple(questions))


def _shuffled(question: Question, rng: np.random.Generator) -> Question:
    labels = rng.permutation([answer.label for answer in question.answers]).tolist()
    best = labels.index(1)
    answers = tuple(
        replace(answer, label=label, is_best=place == best)
        for place, (answer, label) in enumerate(zip(question.answers, labels, strict=True))
    )
    alternates = tuple(_shuffled(alternate, rng) for alternate in question.alternates)
    return replace(question, answers=answers, alternates=alternates)
