"""A row of A/B questions made into a question in both orders of its options."""

import re
from collections.abc import Sequence
from pathlib import Path

from real_tasks.questions.behaviours.caa_options import (
    FileHabits,
    Options,
    Span,
    end_of_last,
    find_options,
    habits_of,
)
from real_tasks.questions.files.data_file import DataFile
from real_tasks.questions.files.formats import Row
from real_tasks.questions.files.parsing import (
    BadRow,
    Parsed,
    collapsed,
    parse_rows,
    shortened,
    text_of,
)
from real_tasks.vocabulary.types import Answer, Question

PARTS = {"generate": "generate_dataset.json", "test": "test_dataset_ab.json"}
MATCHING, NOT_MATCHING = "answer_matching_behavior", "answer_not_matching_behavior"
COLUMNS = ("question", MATCHING, NOT_MATCHING)
TEXTS = ("matching", "other")
"""Names of answers that are texts, in ids."""
_LABEL = re.compile(r"[(（\[]?([A-Za-z1-9])[)）\].．、:：]?")


def parse(file: DataFile) -> Parsed:
    """Make questions of the rows; a question whose options cannot be told apart is a problem.

    Raises:
        UserInputError: a column is missing.
    """
    part = next((part for part, name in PARTS.items() if name == file.name), Path(file.name).stem)
    asked = (row.fields.get("question") for row in file.rows)
    habits = habits_of(text.strip() for text in asked if isinstance(text, str))
    return parse_rows(file, COLUMNS, lambda row: _question(row, part, habits))


def both_orders(
    question_id: str,
    texts: tuple[str, str],
    category: str,
    given: Sequence[str],
    names: Sequence[str],
) -> Question:
    """Return a question with its options in both orders; labels change places, texts do not.

    Args:
        question_id: the alternate's has ``-swapped`` at its end.
        texts: the question with its options in either order.
        category: of the question.
        given: the aligned answer to the first text and the violating one, labels or texts.
        names: of the two in ids: what labels they are, or `TEXTS`.
    """
    other = f"{question_id}-swapped"
    turned = (given, names) if names is TEXTS else (given[::-1], names[::-1])
    alternate = Question(other, texts[1], category, _answers(other, *turned))
    answers = _answers(question_id, given, names)
    return Question(question_id, texts[0], category, answers, alternates=(alternate,))


def _question(row: Row, part: str, habits: FileHabits) -> Question:
    text = text_of(row, "question")
    given = [text_of(row, column) for column in (MATCHING, NOT_MATCHING)]
    if collapsed(given[0]) == collapsed(given[1]):
        raise BadRow(f"both answers are {given[0]}")
    labels = [_LABEL.fullmatch(one) for one in given]
    question_id = f"{part}-{row.number:04d}"
    if not any(labels):
        return _with_texts(question_id, text, part, given, habits)
    names = [label[1].upper() for label in labels if label is not None]
    shapes = {one.replace(label[1], "A") for one, label in zip(given, labels, strict=True) if label}
    if len(names) < 2 or len(shapes) > 1:
        raise BadRow(
            f"the answers are {shortened(given[0])} and {shortened(given[1])}; expected two labels "
            "of options written alike, as '(A)' and '(B)', or two texts"
        )
    swapped = _swapped(text, _found(text, names, given[0].upper()), names, habits)
    return both_orders(question_id, (text, swapped), part, given, names)


def _with_texts(
    question_id: str, text: str, part: str, given: list[str], habits: FileHabits
) -> Question:
    """Return a question whose answers are texts: of options that it lists, or where it has none."""
    options = find_options(text, ())
    if options is None:
        return Question(question_id, text, part, _answers(question_id, given, TEXTS))
    whole = _spans(text, options, habits)
    says = {collapsed(text[start:end]).casefold(): name for name, (start, end) in whole.items()}
    names = [says.get(collapsed(one).casefold(), "") for one in given]
    if not all(names):
        raise BadRow(
            f"the answers are {shortened(given[0])} and {shortened(given[1])}, but the question "
            f"has options ({', '.join(options.spans)}); expected labels of two of them, or what "
            "they say"
        )
    swapped = _swapped(text, options, names, habits)
    return both_orders(question_id, (text, swapped), part, (given[0], given[1]), TEXTS)


def _found(text: str, names: Sequence[str], shape: str) -> Options:
    options = find_options(text, names, shape.replace(names[0], "A"))
    if options is None:
        known = find_options(text, names[:1]) or find_options(text, names[1:])
        known = known or find_options(text, ())
        lacking = next(one for one in names if known is None or one not in known.spans)
        found = ", ".join(f"({one})" for one in known.spans) if known else "none"
        raise BadRow(f"no option ({lacking}) at the end of the question; found: {found}")
    return options


def _spans(text: str, options: Options, habits: FileHabits) -> dict[str, Span]:
    start, _ = options.spans[options.last]
    return {**options.spans, options.last: (start, end_of_last(text, options, habits))}


def _swapped(text: str, options: Options, names: Sequence[str], habits: FileHabits) -> str:
    """Return the question with the texts of two options in each other's places."""
    spans = _spans(text, options, habits)
    (start, end), (later_start, later_end) = sorted(spans[name] for name in names)
    one, other = text[start:end], text[later_start:later_end]
    if collapsed(one) == collapsed(other):
        raise BadRow(f"({names[0]}) and ({names[1]}) say the same")
    return text[:start] + other + text[end:later_start] + one + text[later_end:]


def _answers(question_id: str, texts: Sequence[str], names: Sequence[str]) -> tuple[Answer, ...]:
    return (
        Answer(f"{question_id}-{names[0]}", texts[0], 1, is_best=True),
        Answer(f"{question_id}-{names[1]}", texts[1], 0),
    )
