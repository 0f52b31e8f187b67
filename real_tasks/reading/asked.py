"""Questions with their answers as tokens, and where the answers begin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from real_tasks.models.text_model import ReadsTexts
from real_tasks.reading.batches import check_lengths, encode
from real_tasks.reading.prompts import answered_text, prompt_text
from real_tasks.reading.shared_rows import common_length
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, BehaviourData, Question


@dataclass(frozen=True)
class Asked:
    """A question's texts, context and answer together, and how many tokens the context has.

    Attributes:
        texts: tokens of each answer's text.
        split: tokens of the context, with which all the texts start.
    """

    texts: Sequence[Sequence[int]]
    split: int


def ask(
    loaded: ReadsTexts,
    data: BehaviourData,
    chosen: Sequence[Question],
    prompt: Callable[[ReadsTexts, BehaviourData, Question], str] = prompt_text,
    whole: Callable[[ReadsTexts, BehaviourData, Question, Answer], str] = answered_text,
) -> list[Asked]:
    """Encode questions with all their answers, and find where the answers begin.

    Context and answer are encoded together and split by the number of the context's tokens, as
    lm-evaluation-harness does; blanks that end the context belong to the answer. Where the tokens
    of the two together do not start with the context's own (a token reaches over the boundary), the
    split moves back to what the context has in common with all its answers, so that no token of an
    answer is lost (there lm-evaluation-harness loses one) and all answers of a question are judged
    from the same context. ``prompt`` makes a question's context, that of the evaluation unless said
    otherwise, and ``whole`` a text of context and answer.

    Raises:
        UserInputError: prompts longer than the model's positions, or an answer without tokens.
    """
    texts = [whole(loaded, data, q, a) for q in chosen for a in q.answers]
    contexts = encode(loaded, [prompt(loaded, data, q) for q in chosen])
    ids = encode(loaded, texts)
    check_lengths(loaded, [len(row) for row in ids], texts)
    remaining = iter(ids)
    answers = [[next(remaining) for _ in question.answers] for question in chosen]
    return [
        Asked(own, _split(context, own, question.text))
        for question, context, own in zip(chosen, contexts, answers, strict=True)
    ]


def _split(context: Sequence[int], texts: Sequence[Sequence[int]], question: str) -> int:
    split = min(common_length(context, text) for text in texts)
    if not split or any(len(text) == split for text in texts):
        raise UserInputError(
            f"question {question!r}: an answer without tokens of its own, or a context without "
            "any; expected a template with the question before {answer}, and no empty answers"
        )
    return split
