"""Questions in the forms in which people have them in memory, or by name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

from real_tasks.experiment.sources import load_behaviour
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.jsonl import ALL, COLUMNS, OwnFile
from real_tasks.questions.files.data_file import data_file_of
from real_tasks.questions.files.parsing import BadRow, labelled_answers, shortened, unique
from real_tasks.questions.neutral import DEFAULT_NEUTRAL
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import expanded
from real_tasks.vocabulary.types import BehaviourData, Question

IN_MEMORY = "questions"
"""Name of a behaviour that nothing else names."""
PAIR = ("positive", "negative")
FORMS = (
    f"dicts with {', '.join(COLUMNS)}; pairs of texts ({', '.join(PAIR)}) that begin alike; a "
    "data frame or a data set with such columns; the path of a file; or the name of a behaviour"
)


def behaviour_of(questions: Any) -> BehaviourData:
    """Return the behaviour that ``questions`` stand for.

    Args:
        questions: mappings with the fields of the behaviour `jsonl` (or those of preference data:
            prompt, chosen, rejected); pairs of texts, the one that is wanted first, or mappings
            with positive and negative; a pandas frame or a Hugging Face data set with such columns;
            the path of a file; the name of a behaviour, or that with parameters; or the data
            themselves.

    Raises:
        UserInputError: none of these, or questions that cannot be read; says how to mend it.
    """
    if isinstance(questions, BehaviourData):
        return questions
    if isinstance(questions, PlugIn):
        return load_behaviour(questions)
    if isinstance(questions, str | Path):
        return _named(str(questions))
    if type(questions).__module__.startswith("pandas") and hasattr(questions, "columns"):
        questions = questions.to_dict("records")
    if isinstance(questions, Mapping) or not isinstance(questions, Iterable):
        found = f", of {', '.join(map(str, questions))}" if isinstance(questions, Mapping) else ""
        raise UserInputError(
            f"questions: found {type(questions).__name__}{found}; expected {FORMS}"
        )
    records = list(questions)
    if not records:
        raise UserInputError(f"questions: there are none; expected {FORMS}")
    pairs = [_as_pair(record) for record in records]
    return _of_pairs(pairs) if all(map(_is_pair, pairs)) else _of_records(records)


def _named(name: str) -> BehaviourData:
    if name in BEHAVIOURS:
        return load_behaviour(PlugIn(name=name))
    try:
        there = expanded(name).is_file()
    except UserInputError as error:
        raise UserInputError(f"questions: {error}") from error
    if not there:
        raise UserInputError(
            f"questions: {name!r} is neither a file nor a behaviour; behaviours are "
            f"{', '.join(BEHAVIOURS)}"
        )
    return load_behaviour(PlugIn(name="jsonl", params={"path": name}))


def _of_records(records: Sequence[Any]) -> BehaviourData:
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise UserInputError(
                f"questions: item {number} is {type(record).__name__}; expected {FORMS}"
            )
    rows = [{name: _plain(value) for name, value in record.items()} for record in records]
    return OwnFile(OwnFile.Params()).of(data_file_of(IN_MEMORY, rows), IN_MEMORY)


def _plain(value: Any) -> Any:
    """Return what a frame holds as a file would: no arrays, and nothing for a missing number."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and value != value else value


def _as_pair(record: Any) -> Any:
    """Return the texts of a pair by name; anything else as it is."""
    named = isinstance(record, Mapping) and set(record) == set(PAIR)
    return tuple(record[name] for name in PAIR) if named else record


def _is_pair(record: Any) -> bool:
    return (
        isinstance(record, Sequence)
        and not isinstance(record, str)
        and len(record) == 2
        and all(isinstance(text, str) for text in record)
    )


def _of_pairs(pairs: Sequence[Sequence[str]]) -> BehaviourData:
    """Make a question of what the texts of a pair have in common, up to the last blank in it."""
    ends: dict[str, tuple[list[str], list[str]]] = {}
    for number, pair in enumerate(pairs, start=1):
        begun = re.match(r"(?s)(?:.*\s)?", commonprefix(list(pair)))
        stem = begun[0] if begun else ""
        if not stem.strip() or stem.strip() in {text.strip() for text in pair}:
            raise UserInputError(
                f"questions: the texts of pair {number} ({', '.join(map(shortened, pair))}) do not "
                "begin with the same words and then differ, so that nothing tells the answers from "
                f"what is asked; expected {FORMS}"
            )
        for texts, text in zip(ends.setdefault(stem, ([], [])), pair, strict=True):
            texts.append(text[len(stem) :])
    return BehaviourData(
        name=IN_MEMORY,
        questions=tuple(_question(n, *one) for n, one in enumerate(ends.items(), start=1)),
        neutral_texts=DEFAULT_NEUTRAL,
        template="{question}{answer}",
        source={"pairs": str(len(pairs))},
    )


def _question(number: int, stem: str, answers: tuple[list[str], list[str]]) -> Question:
    aligned, violating = map(unique, answers)
    try:
        made = labelled_answers(f"row-{number}", aligned, violating, aligned[0])
    except BadRow as error:
        raise UserInputError(f"questions: pairs that begin with {shortened(stem)}: {error}") from (
            error
        )
    return Question(f"row-{number}", stem, ALL, made)
