"""From rows to questions: all that is wrong is collected, with lines."""

from collections.abc import Mapping
from typing import Any

import pytest

from real_tasks.questions.files.data_file import DataFile
from real_tasks.questions.files.formats import Problem, Row
from real_tasks.questions.files.parsing import (
    BadRow,
    Parsed,
    accepted,
    labelled_answers,
    optional_text,
    parse_rows,
    text_of,
    texts_of,
    unique,
)
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Question


def row(**fields: Any) -> Row:
    return Row(7, 7, fields)


def file(*records: Mapping[str, Any], problems: tuple[Problem, ...] = ()) -> DataFile:
    rows = tuple(Row(2 * place, place, record) for place, record in enumerate(records, start=1))
    columns = tuple(dict.fromkeys(name for record in records for name in record))
    return DataFile("data.jsonl", "jsonl", columns, rows, problems, "hash")


def question(row: Row) -> Question:
    return Question(f"q{row.number}", text_of(row, "question"), "c", (), optional_text(row, "at"))


def test_problems_of_lines_and_of_questions_come_in_the_order_of_the_file() -> None:
    data = file(
        {"question": "a"},
        {"question": 3},
        {"question": " a "},
        {"question": "a", "at": "x"},
        problems=(Problem(5, "unread"),),
    )
    parsed = parse_rows(data, ["question"], question)
    assert [one.question_id for one in parsed.questions] == ["q1", "q4"]
    assert [str(problem) for problem in parsed.problems] == [
        "line 4: 'question' is a number; expected a text",
        "line 5: unread",
        "line 6: the question of line 2 again: 'a'",
    ]


def test_a_missing_column_is_told_with_those_there_are() -> None:
    with pytest.raises(UserInputError, match="no column 'aligned'; its columns are 'question'"):
        parse_rows(file({"question": "a"}), ["question", "aligned"], question)
    with pytest.raises(UserInputError, match=r"no row that can be read \(line 1: unread\)"):
        parse_rows(file(problems=(Problem(1, "unread"),)), ["question"], question)


def test_bad_lines_are_refused_unless_they_are_to_be_skipped_and_then_recorded() -> None:
    questions = (question(row(question="a")),)
    parsed = Parsed(questions, tuple(Problem(n, "odd") for n in range(1, 8)), {"dropped": "2"})
    with pytest.raises(UserInputError, match="7 bad lines, 1 good ones: line 1: odd; .*skip_bad"):
        accepted(file(), parsed, skip_bad=False)
    source = accepted(file(), parsed, skip_bad=True)
    assert source["questions"] == "1" and source["dropped"] == "2"
    assert source["left_out"].startswith("7 bad lines: line 1: odd; line 2: odd")
    assert source["left_out"].endswith("line 5: odd; ...")
    with pytest.raises(UserInputError, match="no question that can be used"):
        accepted(file(), Parsed((), (Problem(1, "odd"),)), skip_bad=True)


def test_texts_are_stripped_and_may_be_one_or_many() -> None:
    assert text_of(row(a=" x "), "a") == "x"
    assert texts_of(row(a=[" x", "y "]), "a") == ["x", "y"]
    assert texts_of(row(a="x|y"), "a") == ["x|y"]
    assert texts_of(row(a=" x | y"), "a", "|") == ["x", "y"]
    assert [optional_text(row(a=value), "a", "-") for value in (None, " ", "x")] == ["-", "-", "x"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "no 'a'"),
        ([], "holds no answer"),
        (["x", " "], "holds an empty answer"),
        (3, "is a number; expected a text or a list of texts"),
        (["x", 3], "a list that holds a number and a text"),
        ({"x": 1}, "is an object"),
    ],
)
def test_a_wrong_list_of_answers_is_told(value: Any, told: str) -> None:
    with pytest.raises(BadRow, match=told):
        texts_of(row(a=value), "a")


def test_answers_have_ids_labels_and_one_best_of_either_side() -> None:
    answers = labelled_answers("q", ["a", "b"], ["c", "d"], "b", "c")
    assert [(a.answer_id, a.text, a.label, a.is_best) for a in answers] == [
        ("q-0", "a", 1, False),
        ("q-1", "b", 1, True),
        ("q-2", "c", 0, True),
        ("q-3", "d", 0, False),
    ]
    assert not any(a.is_best for a in labelled_answers("q", ["a"], ["c"], "a") if a.label == 0)


@pytest.mark.parametrize(
    ("aligned", "violating", "best", "told"),
    [
        (["a"], ["a "], "a", "'a' is aligned and violating"),
        (["a", "a"], ["b"], "a", "'a' is there twice"),
        (["a"], ["b"], "b", "'b' is not among the aligned ones"),
    ],
)
def test_contradictory_answers_are_refused(
    aligned: list[str], violating: list[str], best: str, told: str
) -> None:
    with pytest.raises(BadRow, match=told):
        labelled_answers("q", aligned, violating, best)


def test_unique_keeps_the_first_of_texts_that_differ_in_blanks() -> None:
    assert unique(["b", "a  c", "a c", "b"]) == ["b", "a  c"]
