"""From rows of data files to questions: fields, answers and their labels, what is wrong with them.

A behaviour's file says which fields there are; this module is what those files share.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from real_tasks.questions.files.data_file import DataFile
from real_tasks.questions.files.formats import Problem, Row, kind_of
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, Question

LISTED = 5
"""How many problems an error or a record names; ``real data check`` names all."""


class BadRow(ValueError):
    """What is wrong with one row; it becomes a `Problem` with the row's line."""


@dataclass(frozen=True)
class Parsed:
    """Questions of a file's good rows and problems of all other lines, in the order of the file.

    `notes` say what was left out of the good rows, for the record.
    """

    questions: tuple[Question, ...]
    problems: tuple[Problem, ...]
    notes: Mapping[str, str] = field(default_factory=dict)


def parse_rows(file: DataFile, columns: Sequence[str], parse: Callable[[Row], Question]) -> Parsed:
    """Make a question of every row: ``parse`` does so, or raises `BadRow`.

    Raises:
        UserInputError: a column is missing in all rows, or no row can be read.
    """
    require_columns(file, columns)
    questions: list[Question] = []
    problems = list(file.problems)
    places: dict[tuple[str, str], str] = {}
    for row in file.rows:
        # An array often stands on a single line, where only the item tells.
        item = f"item {row.number}" if file.format == "json" else ""
        try:
            question = parse(row)
            key = (collapsed(question.context), collapsed(question.text))
            if key in places:
                raise BadRow(f"the question of {places[key]} again: {shortened(question.text)}")
            places[key] = item or f"line {row.line}"
            questions.append(question)
        except BadRow as error:
            problems.append(Problem(row.line, f"{item}: {error}" if item else str(error)))
    return Parsed(tuple(questions), tuple(sorted(problems, key=lambda one: one.line)))


def require_columns(file: DataFile, columns: Iterable[str]) -> None:
    """Check that the file has columns.

    Raises:
        UserInputError: one is missing in all rows, or no row can be read.
    """
    missing = [name for name in columns if name not in file.columns]
    if not file.rows:
        raise UserInputError(
            f"{file.name!r} has no row that can be read{_and_first(file.problems)}; expected rows "
            f"with the columns {', '.join(columns)}"
        )
    if missing:
        raise UserInputError(
            f"{file.name!r} has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, file.columns))}; add what is missing, or rename a column"
        )


def accepted(file: DataFile, parsed: Parsed, skip_bad: bool) -> dict[str, str]:
    """Return the record of where questions come from and what was left out.

    Raises:
        UserInputError: there are problems and ``skip_bad`` is false, or no question is left.
    """
    bad = len(parsed.problems)
    listed = "; ".join(map(str, parsed.problems[:LISTED])) + ("; ..." if bad > LISTED else "")
    if bad and not skip_bad:
        raise UserInputError(
            f"{file.name!r} has {bad} bad line{'s' * (bad > 1)}, {len(parsed.questions)} good "
            f"ones: {listed}; mend them ('real data check' lists all), or keep the good ones with "
            "skip_bad (real run --skip-bad)"
        )
    if not parsed.questions:
        raise UserInputError(f"{file.name!r} holds no question that can be used: {listed}")
    left_out = {"left_out": f"{bad} bad line{'s' * (bad > 1)}: {listed}"} if bad else {}
    return {
        "file": file.name,
        "sha256": file.sha256,
        "questions": str(len(parsed.questions)),
        **parsed.notes,
        **left_out,
    }


def text_of(row: Row, column: str) -> str:
    """Return a text without blanks at its ends; a missing or empty one raises `BadRow`."""
    value = row.fields.get(column)
    if value is None:
        raise BadRow(f"no {column!r}")
    if not isinstance(value, str):
        raise BadRow(f"{column!r} is {kind_of(value)}; expected a text")
    if not value.strip():
        raise BadRow(f"{column!r} is empty")
    return value.strip()


def optional_text(row: Row, column: str, default: str = "") -> str:
    """Return a text, or the default where it is missing or empty."""
    value = row.fields.get(column)
    blank = value is None or (isinstance(value, str) and not value.strip())
    return default if blank else text_of(row, column)


def texts_of(row: Row, column: str, separator: str | None = None) -> list[str]:
    """Return a list of texts, none empty.

    The column has a list of them, or one text: a single one without a ``separator``.
    """
    value: Any = row.fields.get(column)
    if value is None:
        raise BadRow(f"no {column!r}")
    if isinstance(value, str) and separator is not None and re.fullmatch(r"\[(['\"]).*\1\]", value):
        raise BadRow(
            f"{column!r} is {shortened(value)}, as programs print a list; write the answers with "
            f"{separator!r} between them, or keep the data as JSON lines or Parquet, which have "
            "lists"
        )
    if isinstance(value, str):
        value = [value] if separator is None else value.split(separator)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        kinds = sorted({kind_of(one) for one in value}) if isinstance(value, list) else []
        found = f"a list that holds {' and '.join(kinds)}" if kinds else kind_of(value)
        raise BadRow(f"{column!r} is {found}; expected a text or a list of texts")
    texts = [str(text).strip() for text in value]
    if not texts:
        raise BadRow(f"{column!r} holds no answer")
    if not all(texts):
        raise BadRow(f"{column!r} holds an empty answer")
    return texts


def labelled_answers(
    question_id: str,
    aligned: Sequence[str],
    violating: Sequence[str],
    best: str,
    best_violating: str | None = None,
) -> tuple[Answer, ...]:
    """Return the answers of a question, aligned ones (label 1) first, all different.

    ``best`` is one of the aligned; ``best_violating``, where data mark one, is the violating answer
    that is likeliest to mislead.
    """
    texts = [(text, 1) for text in aligned] + [(text, 0) for text in violating]
    repeated = [text for text, n in Counter(collapsed(text) for text, _ in texts).items() if n > 1]
    if repeated:
        both = repeated[0] in {collapsed(text) for text in aligned} & {
            collapsed(text) for text in violating
        }
        what = "is aligned and violating" if both else "is there twice"
        raise BadRow(f"the answer {shortened(repeated[0])} {what}")
    if collapsed(best) not in {collapsed(text) for text in aligned}:
        raise BadRow(f"the best answer {shortened(best)} is not among the aligned ones")
    marked = {1: collapsed(best), 0: None if best_violating is None else collapsed(best_violating)}
    return tuple(
        Answer(f"{question_id}-{place}", text, label, is_best=collapsed(text) == marked[label])
        for place, (text, label) in enumerate(texts)
    )


def annotated(
    answers: tuple[Answer, ...], row: Row, separator: str | None = None
) -> tuple[Answer, ...]:
    """Return the answers of a row with what its columns class, pair and marks say of them.

    Each is a text for all answers, or a list with one for each (empty: none), in their order. Marks
    are characters of the answer, from 0, a dash, and the one after the last: ``0-4 10-12``.
    """
    said = [_each(row, column, len(answers), separator) for column in ("class", "pair", "marks")]
    return tuple(
        replace(answer, class_name=of_class, pair=pair, marks=_marks(answer.text, marks))
        for answer, of_class, pair, marks in zip(answers, *said, strict=True)
    )


def _each(row: Row, column: str, n_answers: int, separator: str | None) -> list[str]:
    value = row.fields.get(column)
    if value is None or value == "":
        return [""] * n_answers
    if isinstance(value, str):
        value = [value] if separator is None else value.split(separator)
    if not isinstance(value, list) or not all(one is None or isinstance(one, str) for one in value):
        raise BadRow(f"{column!r} is {kind_of(value)}; expected a text, or a list of texts")
    texts = [(one or "").strip() for one in value]
    if len(texts) not in (1, n_answers):
        raise BadRow(
            f"{column!r} has {len(texts)} entries; expected {n_answers}, one for each answer (the "
            "aligned first), or one for all"
        )
    return texts if len(texts) == n_answers else texts * n_answers


def _marks(text: str, marks: str) -> tuple[tuple[int, int], ...]:
    found = [re.fullmatch(r"(\d+)-(\d+)", one) for one in marks.split()]
    spans = tuple((int(one[1]), int(one[2])) for one in found if one)
    if len(spans) < len(found) or not all(a < b <= len(text) for a, b in spans):
        raise BadRow(
            f"'marks' is {shortened(marks)}; expected places in {shortened(text)}: characters from "
            f"0 up to {len(text)}, as '0-4 10-12'"
        )
    return spans


def unique(texts: Iterable[str]) -> list[str]:
    """Return the texts that differ by more than their blanks, the first of each."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(collapsed(text), text)
    return list(first.values())


def collapsed(text: str) -> str:
    """Return the text with single blanks."""
    return " ".join(text.split())


def shortened(text: str) -> str:
    """Return the beginning of a text, quoted, for a message."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _and_first(problems: Sequence[Problem]) -> str:
    return f" ({problems[0]})" if problems else ""
