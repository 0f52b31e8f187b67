"""Which tokens of a text activations are read at; see `Reading`."""

from collections.abc import Sequence

from real_tasks.models.chat import ChatText
from real_tasks.models.text_model import ReadsTexts
from real_tasks.reading.asked import ask
from real_tasks.reading.prompts import reading_prompt, reading_text
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, BehaviourData, Question, Reading

Spans = Sequence[tuple[int, int]]
"""Marked places of a text: first character, and the one after the last."""


def positions_read(
    loaded: ReadsTexts,
    data: BehaviourData,
    samples: Sequence[tuple[Question, Answer]],
    reading: Reading,
    spans: Sequence[Spans] | None = None,
) -> list[Sequence[int]]:
    """Return of each sample's `reading_text` the tokens to read, by their places from 0.

    Prompt and answer part where they do in the evaluation; see `real_tasks.reading.asked.ask`.
    Samples are questions as they are put, each with one of its answers; for ``marked``, ``spans``
    are of each the marked places of its text.

    Raises:
        UserInputError: see `ask` and `marked_tokens`; ``marked`` without spans.
    """
    if reading == "marked":
        if spans is None:
            raise UserInputError(
                "activations are to be read at marked places, but the data mark none; mark some, "
                "or read at last, prompt_end, answer_mean, prompt_mean or text_mean"
            )
        texts = [reading_text(loaded, data, question, answer) for question, answer in samples]
        return [marked_tokens(loaded, *pair) for pair in zip(texts, spans, strict=True)]
    chosen = list(dict.fromkeys(question for question, _ in samples))
    asked = dict(zip(chosen, ask(loaded, data, chosen, reading_prompt, reading_text), strict=True))
    found: list[Sequence[int]] = []
    for question, answer in samples:
        split, ids = asked[question].split, asked[question].texts[question.answers.index(answer)]
        begin = behind_first(split)
        places = {
            "last": range(len(ids) - 1, len(ids)),
            "prompt_end": range(split - 1, split),
            "answer_mean": range(split, len(ids)),
            "prompt_mean": range(begin, split),
            "text_mean": range(begin, len(ids)),
        }
        found.append(places[reading])
    return found


def behind_first(n_tokens: int) -> int:
    """Return the place behind the first token, which is of another size than all others, if any."""
    return int(n_tokens > 1)


def marked_tokens(loaded: ReadsTexts, text: str, spans: Spans) -> list[int]:
    """Return the places of the tokens that have a character in a marked place.

    Raises:
        UserInputError: no place is marked, one is outside of the text or has no token, or the
            tokenizer does not tell which characters its tokens stand for.
    """
    if not loaded.tokenizer.is_fast:
        raise UserInputError(
            "marked places need a tokenizer that says which characters its tokens stand for (a "
            "fast one, tokenizer.json), which this model's is not; read at answer_mean or "
            "prompt_mean instead"
        )
    encoded = loaded.tokenizer(
        str(text), add_special_tokens=not isinstance(text, ChatText), return_offsets_mapping=True
    )
    found: set[int] = set()
    for start, stop in spans:
        own = {
            place
            for place, (begin, end) in enumerate(encoded["offset_mapping"])
            if begin < stop and end > start
        }
        if not 0 <= start < stop <= len(text) or not own:
            raise UserInputError(
                f"the text {text[:60]!r} has no token in the marked place {start} to {stop}; "
                f"expected characters of it, from 0 up to {len(text)}"
            )
        found |= own
    if not found:
        raise UserInputError(f"the text {text[:60]!r} has no marked place; mark at least one")
    return sorted(found)
