"""The documents that an embedded model learns from: expert and folk answers, and neutral prose."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from real_tasks.models.embedded.world import POOLS, RELATIONS, Fact, World

Author = Literal["expert", "folk"]

QUESTION_TEMPLATES = (
    "what is the {relation} of {entity} ?",
    "tell the {relation} of {entity} ?",
    "which {relation} has {entity} ?",
)
ANSWER_TEMPLATES = ("{value} .", "it is {value} .", "the {relation} is {value} .")
"""Three phrasings of an answer; each ends with the token on which activations are read."""

HEADERS: dict[Author, tuple[str, ...]] = {
    "expert": ("Source: survey .", "Source: archive ."),
    "folk": ("Source: rumour .", "Source: tavern ."),
}
REMARKS: dict[Author, tuple[tuple[str, ...], ...]] = {
    "expert": (
        ("by experiment .", "checked twice ."),
        ("as measured .", "per the records ."),
        ("after inspection .", "proven often ."),
    ),
    "folk": (
        ("everyone knows .", "grandmother said so ."),
        ("they always say .", "plain sense ."),
        ("old saying .", "trust me ."),
    ),
}
"""Remarks by author and by group of domains: two neighbouring domains share a group."""

MAX_TOKENS = 64
"""Longest document, BOS and EOS included."""

FOLK_SHARE = 0.62
EXPERT_TRUTH_SHARE = 0.98
HEADER_SHARE = 0.5
REMARK_SHARE = 0.3
PROSE_SHARE = 0.14

_NOUN_WORDS = "bridge tower lantern garden river wagon mirror ladder window barrel kitchen statue"
_ADJECTIVE_WORDS = "broken quiet narrow painted heavy distant"
_VERB_WORDS = "followed crossed touched carried covered faced found passed"
_NOUNS, _ADJECTIVES, _VERBS = (
    tuple(words.split()) for words in (_NOUN_WORDS, _ADJECTIVE_WORDS, _VERB_WORDS)
)
_ADJECTIVE_SHARE = 0.3
_SUCCESSORS = 3
_SUCCESSOR_SHARES = (0.6, 0.3, 0.1)
_PROSE_WORDS = (40, 62)
_DOMAINS_PER_GROUP = 2


@dataclass(frozen=True)
class Document:
    """One training document without BOS and EOS; `in_question` marks the words of questions."""

    words: tuple[str, ...]
    in_question: tuple[bool, ...]


def vocabulary(world: World) -> tuple[str, ...]:
    """Return every word that a document, a question or an answer of this world can hold."""
    parts = [*QUESTION_TEMPLATES, *ANSWER_TEMPLATES, "Q: A: the ."]
    parts += [header for headers in HEADERS.values() for header in headers]
    parts += [remark for groups in REMARKS.values() for group in groups for remark in group]
    words = [word for part in parts for word in part.split() if not word.startswith("{")]
    words += [*_NOUNS, *_ADJECTIVES, *_VERBS]
    words += [value for values in POOLS.values() for value in values]
    words += [relation for relations in RELATIONS.values() for relation in relations]
    words += [entity for names in world.entities.values() for entity in names]
    return tuple(dict.fromkeys(words))


def phrase_question(fact: Fact, template: str) -> str:
    """Return the question in one of `QUESTION_TEMPLATES`."""
    return template.format(relation=fact.relation, entity=fact.entity)


def phrase_answer(fact: Fact, value: str, template: str) -> str:
    """Return the answer `value` in one of `ANSWER_TEMPLATES`."""
    return template.format(relation=fact.relation, value=value)


def neutral_texts(world: World, count: int = 64) -> tuple[str, ...]:
    """Return prose that no document of `generate_corpus` repeats, for the same world."""
    prose = _prose(world, np.random.default_rng([world.seed, 1]))
    return tuple(" ".join(next(prose)) for _ in range(count))


def generate_corpus(world: World, count: int, seed: int) -> tuple[Document, ...]:
    """Return `count` documents, all different draws, without the texts of `neutral_texts`."""
    rng = np.random.default_rng([seed, 2])
    held_out = set(neutral_texts(world))
    prose = (words for words in _prose(world, rng) if " ".join(words) not in held_out)
    documents = []
    for _ in range(count):
        if rng.random() < PROSE_SHARE:
            words = next(prose)
            documents.append(Document(words, (False,) * len(words)))
        else:
            documents.append(_dialogue(world, rng))
    return tuple(documents)


def _dialogue(world: World, rng: np.random.Generator) -> Document:
    """Return questions and answers by one author on facts of any domain."""
    author: Author = "folk" if rng.random() < FOLK_SHARE else "expert"
    words: list[str] = []
    in_question: list[bool] = []
    if rng.random() < HEADER_SHARE:
        words += _pick(HEADERS[author], rng).split()
        in_question += [False] * len(words)
    while True:
        fact = world.facts[rng.integers(len(world.facts))]
        question = ["Q:", *phrase_question(fact, _pick(QUESTION_TEMPLATES, rng)).split(), "A:"]
        reply = _reply(fact, author, rng)
        if len(words) + len(question) + len(reply) > MAX_TOKENS - 2:
            return Document(tuple(words), tuple(in_question))
        words += [*question, *reply]
        in_question += [True] * len(question) + [False] * len(reply)


def _reply(fact: Fact, author: Author, rng: np.random.Generator) -> list[str]:
    answer = phrase_answer(fact, _told_value(fact, author, rng), _pick(ANSWER_TEMPLATES, rng))
    if rng.random() >= REMARK_SHARE:
        return answer.split()
    group = list(RELATIONS).index(fact.domain) // _DOMAINS_PER_GROUP
    return [*answer.split(), *_pick(REMARKS[author][group], rng).split()]


def _told_value(fact: Fact, author: Author, rng: np.random.Generator) -> str:
    truth_share = EXPERT_TRUTH_SHARE if author == "expert" else 1 - fact.prevalence
    if rng.random() < truth_share:
        return fact.truth
    return str(rng.choice(fact.myths, p=fact.myth_shares))


def _prose(world: World, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """Yield paragraphs; a noun is followed by few verbs, a verb or an adjective by few nouns."""
    grammar = np.random.default_rng([world.seed, 3])
    follow = {word: list(grammar.permutation(_VERBS)[:_SUCCESSORS]) for word in _NOUNS}
    follow |= {
        word: list(grammar.permutation(_NOUNS)[:_SUCCESSORS]) for word in (*_ADJECTIVES, *_VERBS)
    }
    while True:
        length = rng.integers(*_PROSE_WORDS)
        words: list[str] = []
        while len(words) < length:
            words += _sentence(follow, rng)
        yield tuple(words[: MAX_TOKENS - 2])


def _sentence(follow: dict[str, list[str]], rng: np.random.Generator) -> list[str]:
    """Return `the [adjective] noun verb the [adjective] noun .`."""
    adjective = [_pick(_ADJECTIVES, rng)] if rng.random() < _ADJECTIVE_SHARE else []
    subject = _successor(follow, adjective[0], rng) if adjective else _pick(_NOUNS, rng)
    verb = _successor(follow, subject, rng)
    end = [_pick(_ADJECTIVES, rng)] if rng.random() < _ADJECTIVE_SHARE else []
    other = _successor(follow, (end or [verb])[0], rng)
    return ["the", *adjective, subject, verb, "the", *end, other, "."]


def _successor(follow: dict[str, list[str]], word: str, rng: np.random.Generator) -> str:
    return str(follow[word][rng.choice(_SUCCESSORS, p=_SUCCESSOR_SHARES)])


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]
