"""The formats of TruthfulQA: TruthfulQA.csv, mc_task.json, and the Hub's ``multiple_choice``."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from real_tasks.questions.files.data_file import DataFile
from real_tasks.questions.files.formats import Row, kind_of
from real_tasks.questions.files.parsing import (
    BadRow,
    Parsed,
    collapsed,
    labelled_answers,
    optional_text,
    parse_rows,
    text_of,
    unique,
)
from real_tasks.vocabulary.types import Question

CSV_COLUMNS = ("Question", "Best Answer", "Correct Answers", "Incorrect Answers")
TARGETS_COLUMNS = ("question", "mc1_targets", "mc2_targets")
ALL = "all"
"""The category of questions whose file names none."""


def parse(file: DataFile) -> Parsed:
    """Make questions of the rows; the columns tell which format it is.

    The published data repeat some answers within a question, call a few both true and false, and
    hold some without a text. Each answer is taken once, those of both kinds and empty ones are left
    out, and `Parsed.notes` counts them.

    Raises:
        UserInputError: columns of both formats are missing.
    """
    of_targets = "mc1_targets" in file.columns
    left_out: Counter[str] = Counter()

    def parse_row(row: Row) -> Question:
        noted: Counter[str] = Counter()
        question = (_of_targets if of_targets else _of_csv)(row, noted)
        left_out.update(noted)
        return question

    parsed = parse_rows(file, TARGETS_COLUMNS if of_targets else CSV_COLUMNS, parse_row)
    notes = {what: str(count) for what, count in sorted(left_out.items())}
    return Parsed(parsed.questions, parsed.problems, notes)


def _of_csv(row: Row, noted: Counter[str]) -> Question:
    # A trailing separator is common in the published file; it makes no answer.
    aligned, violating = (_listed(row, name) for name in ("Correct Answers", "Incorrect Answers"))
    return _question(
        row,
        text_of(row, "Question"),
        optional_text(row, "Category", ALL),
        (aligned, violating),
        (text_of(row, "Best Answer"), optional_text(row, "Best Incorrect Answer") or None),
        noted,
    )


def _listed(row: Row, column: str) -> list[str]:
    return [text.strip() for text in text_of(row, column).split(";") if text.strip()]


def _of_targets(row: Row, noted: Counter[str]) -> Question:
    targets = {name: _targets(row, name) for name in ("mc1_targets", "mc2_targets")}
    best = [text for text, label in targets["mc1_targets"] if label]
    if len(best) != 1:
        raise BadRow(f"'mc1_targets' marks {len(best)} answers as true; expected one, the best")
    aligned, violating = (
        [text for text, label in targets["mc2_targets"] if label == wanted] for wanted in (1, 0)
    )
    of_mc1 = {collapsed(text) for text, label in targets["mc1_targets"] if not label}
    if of_mc1 != {collapsed(text) for text in violating}:
        noted["questions_with_other_false_answers_in_mc1"] += 1
    marked = _targets(row, "mc0_targets") if row.fields.get("mc0_targets") else []
    best_violating = next((text for text, label in marked if not label), None)
    return _question(
        row,
        text_of(row, "question"),
        optional_text(row, "category", ALL),
        (aligned, violating),
        (best[0], best_violating),
        noted,
    )


def _targets(row: Row, column: str) -> list[tuple[str, int]]:
    """Return answers with their labels, of ``{answer: label}`` or the Hub's two lists."""
    value: Any = row.fields.get(column)
    if not isinstance(value, Mapping):
        raise BadRow(f"{column!r} is {kind_of(value)}; expected answers with 0 or 1 each")
    pairs: list[tuple[Any, Any]] = list(value.items())
    if set(value) == {"choices", "labels"}:
        texts, labels = value["choices"], value["labels"]
        if not (isinstance(texts, list) and isinstance(labels, list)) or len(texts) != len(labels):
            raise BadRow(f"{column!r}: expected lists of as many choices as labels")
        pairs = list(zip(texts, labels, strict=True))
    if not all(isinstance(text, str) and label in (0, 1) for text, label in pairs):
        raise BadRow(f"{column!r} holds a label other than 0 and 1, or an answer that is no text")
    return [(text.strip(), int(label)) for text, label in pairs]


def _question(
    row: Row,
    text: str,
    category: str,
    answers: tuple[list[str], list[str]],
    best: tuple[str, str | None],
    noted: Counter[str],
) -> Question:
    aligned, violating = (unique(text for text in texts if text) for texts in answers)
    both = {collapsed(t) for t in aligned} & {collapsed(t) for t in violating}
    empty = sum(not text for texts in answers for text in texts)
    repeated = sum(map(len, answers)) - len(aligned) - len(violating) - empty
    aligned, violating = (
        [t for t in texts if collapsed(t) not in both] for texts in (aligned, violating)
    )
    best_violating = best[1]
    if best_violating and collapsed(best_violating) not in {collapsed(t) for t in violating}:
        best_violating = None
        noted["best_incorrect_answers_not_among_the_false"] += 1
    if not aligned or not violating:
        raise BadRow("no true or no false answer")
    question_id = f"truthfulqa-{row.number:04d}"
    counts = {
        "answers_repeated": repeated,
        "answers_empty": empty,
        "answers_both_true_and_false": len(both),
    }
    noted.update({what: count for what, count in counts.items() if count})
    made = labelled_answers(question_id, aligned, violating, best[0], best_violating)
    return Question(question_id, text, category, made)
