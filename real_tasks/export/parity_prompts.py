"""The prompts of a parity file: some of the behaviour, some neutral."""

from collections.abc import Sequence
from typing import Literal

from real_tasks.models.loading import LoadedModel
from real_tasks.reading.prompts import prompt_text
from real_tasks.vocabulary.types import BehaviourData

N_QUESTIONS = 4
N_NEUTRAL = 2
_NEUTRAL_WORDS = 12
_NEUTRAL = (
    "The train to the coast leaves at seven in the morning and arrives",
    "To make bread you need flour, water, a little salt and",
)


def parity_prompts(
    loaded: LoadedModel, data: BehaviourData, questions: Sequence[int]
) -> list[tuple[Literal["behaviour", "neutral"], str]]:
    """Return prompts of the behaviour as the evaluation puts them, and beginnings of neutral texts.

    Of the questions, indices into ``data.questions``, the first ones are taken.
    """
    asked = [data.questions[i] for i in questions[:N_QUESTIONS]]
    texts = [" ".join(text.split()[:_NEUTRAL_WORDS]) for text in data.neutral_texts]
    neutral = [text for text in texts if text] or list(_NEUTRAL)
    return [
        *(("behaviour", prompt_text(loaded, data, question)) for question in asked),
        *(("neutral", text) for text in neutral[:N_NEUTRAL]),
    ]
