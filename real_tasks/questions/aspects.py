"""Which of pairs, classes, conditions and marks samples have."""

from collections.abc import Sequence

from real_tasks.questions.samples import Sample, pairs_of
from real_tasks.vocabulary.types import Aspect

MENDS: dict[Aspect, tuple[str, str]] = {
    "pairs": (
        "demo_truth has them, ",
        "add a field pair, or give each question as many aligned as violating answers",
    ),
    "classes": ("", "add a field class with at least two names"),
    "conditions": ("", "add a field condition with at least two names"),
    "marks": ("", "add a field marks to every answer"),
}
"""By what is lacking: which data have it, for a message, and how to add it."""


def aspects_of(samples: Sequence[Sample], paired: bool) -> set[Aspect]:
    """Return what samples have: a pair, several classes or conditions, marks in all answers."""
    classes = {sample.answer.class_name for sample in samples} - {""}
    conditions = {sample.question.condition for sample in samples} - {""}
    found: dict[Aspect, bool] = {
        "pairs": max(pairs_of(samples, paired), default=-1) >= 0,
        "classes": len(classes) > 1,
        "conditions": len(conditions) > 1,
        "marks": all(sample.answer.marks for sample in samples),
    }
    return {aspect for aspect, there in found.items() if there}
