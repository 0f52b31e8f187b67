"""What generated answers are worth as text: perplexity, repetition, length, refusals."""

import math
from collections.abc import Sequence
from dataclasses import replace

import regex

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.measures import MeasureInput
from real_tasks.evaluation.words import normalised, words
from real_tasks.reading.asked import ask
from real_tasks.vocabulary.types import Answer, Question

PERPLEXITY = "generation_perplexity"
FLUENCY = (PERPLEXITY, "generation_rep3", "generation_tokens", "refusals")
"""The metrics that `fluency` gives."""
LARGEST = 700.0
"""Nats per token of which the perplexity is a number."""
_REFUSES = regex.compile(
    r"\A(?:\w+[,.!]? ){0,2}?(?:i(?: am|'m) (?:\w+ )?(?:sorry|unable|not able)"
    r"|i (?:can(?:not|'t| not)|could not|couldn't|will not|won't|must decline|refuse)\b"
    r"|as an ai\b|as a language model\b|sorry\b)"
)
"""How refusals in English begin, after up to two words such as "Well, "."""


def fluency(given: MeasureInput, said: Sequence[str]) -> dict[str, list[float]]:
    """Return metrics of one generated answer to each question that is measured.

    ``generation_perplexity`` is the answer's after its prompt under the unsteered model, per token;
    1 of an empty one. ``generation_rep3`` is rep-n of Welleck et al. 2020 (arXiv 1908.04319) with
    n = 3, on words: 1 - distinct trigrams / trigrams, that is 1 - distinct-3 (Li et al. 2016, arXiv
    1510.03055), 0 below three words. ``generation_tokens`` is the answer's length. ``refusals`` are
    answers that begin as refusals in English do.
    """
    perplexities, counts = [1.0] * len(said), [0.0] * len(said)
    places = [place for place, text in enumerate(said) if text]
    asked = [given.data.questions[given.questions[place]] for place in places]
    answered = [_answered(one, said[place]) for one, place in zip(asked, places, strict=True)]
    data = replace(given.data, questions=tuple(answered))
    encoded = encode_choices(
        given.loaded, data, range(len(places)), given.config.batch_tokens, given.share_prompts
    )
    scores = score_choices(given.loaded, encoded, None)
    texts = ask(given.loaded, data, answered)
    for place, (score,), one in zip(places, scores, texts, strict=True):
        counts[place] = float(len(one.texts[0]) - one.split)
        perplexities[place] = math.exp(min(-score / counts[place], LARGEST))
    repeated = [repeated_trigrams(text) for text in said]
    refused = [float(refuses(text)) for text in said]
    return dict(zip(FLUENCY, (perplexities, repeated, counts, refused), strict=True))


def _answered(question: Question, said: str) -> Question:
    return replace(question, answers=(Answer("said", said, 1, True),), alternates=())


def repeated_trigrams(text: str) -> float:
    """Return 1 - distinct trigrams / trigrams of a text's words, 0 where there is no trigram."""
    found = words(text)
    trigrams = list(zip(found, found[1:], found[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def refuses(text: str) -> bool:
    """Say whether a text begins as refusals in English do."""
    return _REFUSES.search(normalised(text)) is not None
