"""Data files are read row by row, each with its line; what is wrong with a line is told by it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from real_tasks.questions.files.data_file import DataFile, data_file_of, read_data_file
from real_tasks.questions.files.formats import Problem
from real_tasks.questions.neutral import load_neutral
from real_tasks.results.comparing.published import read_rankings
from real_tasks.vocabulary.errors import UserInputError

RECORDS = [
    {"question": "How is it?", "aligned": ["good", "fine"]},
    {"question": "Où?\u2028Là", "aligned": ["ici"]},
]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, name: str, content: str | bytes) -> DataFile:
    return read_data_file(written(folder, name, content))


def places(file: DataFile) -> list[tuple[int, int]]:
    return [(row.line, row.number) for row in file.rows]


def test_json_lines_and_arrays_and_parquet_give_the_same_records(tmp_path: Path) -> None:
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)
    pd.DataFrame(RECORDS).to_parquet(tmp_path / "a.parquet")
    files = [
        read(tmp_path, "a.jsonl", lines),
        read(tmp_path, "lines.json", lines),
        read(tmp_path, "b.json", json.dumps(RECORDS, indent=1)),
        read(tmp_path, "wide.jsonl", lines.encode("utf-16")),
        read(tmp_path, "ends.jsonl", lines + "\n\r\n \n"),
        read(tmp_path, "bom.jsonl", "\ufeff" + lines.replace("\n", "\r\n")),
        read_data_file(tmp_path / "a.parquet"),
    ]
    assert [file.format for file in files] == [
        *("jsonl", "jsonl", "json", "jsonl", "jsonl", "jsonl", "parquet")
    ]
    for file in files:
        assert [dict(row.fields) for row in file.rows] == RECORDS
        assert file.columns == ("question", "aligned") and not file.problems
    assert len({file.sha256 for file in files}) == 6


def test_lines_of_an_array_are_those_on_which_its_objects_begin(tmp_path: Path) -> None:
    text = '[\n {"a": "x\\ny",\n  "b": 1},\n\n {"a": 2}, {"a": 3}\n]\n'
    assert places(read(tmp_path, "a.json", text)) == [(2, 1), (5, 2), (5, 3)]


def test_lines_of_a_long_array_are_those_of_a_plain_count(tmp_path: Path) -> None:
    records = [{"a": "x" * (n % 7), "b": [n] * (n % 3)} for n in range(500)]
    text = "\n" + json.dumps(records, indent=1) + "\n"
    begins = [n for n, line in enumerate(text.split("\n"), start=1) if line == " {"]
    assert [row.line for row in read(tmp_path, "a.json", text).rows] == begins


def test_what_follows_a_fault_in_an_array_is_not_read_but_what_precedes_is(tmp_path: Path) -> None:
    file = read(tmp_path, "a.json", '[\n{"a": 1},\n"text",\n{"a": oops},\n{"a": 3}]')
    assert places(file) == [(2, 1)]
    assert [problem.line for problem in file.problems] == [3, 4]
    assert "what follows was not read" in file.problems[1].what


@pytest.mark.parametrize("text", ['[{"a": 1}', '[{"a": 1} {"a": 2}]', '[{"a": 1}] more'])
def test_an_array_that_does_not_end_as_it_should_is_a_problem(tmp_path: Path, text: str) -> None:
    file = read(tmp_path, "a.json", text)
    assert len(file.rows) == 1 and len(file.problems) == 1


def test_bad_json_lines_are_told_by_their_numbers_and_spare_the_others(tmp_path: Path) -> None:
    text = b'{"a": 1}\n\n{"a": \n[1, 2]\n{"a": "caf\xe9"}\n{"b": 2}\n'
    file = read(tmp_path, "a.jsonl", text)
    assert places(file) == [(1, 1), (6, 6)]
    assert [problem.line for problem in file.problems] == [2, 3, 4, 5]
    what = [problem.what for problem in file.problems]
    assert what[0] == "empty line"
    assert "invalid JSON" in what[1] and "a list; expected an object" in what[2]
    assert "not UTF-8 (byte 0xe9 in 'a')" in what[3]
    assert file.columns == ("a", "b")


def test_csv_rows_begin_where_their_quoted_fields_begin(tmp_path: Path) -> None:
    text = 'q,a\n"one\ntwo",x\n\n"three",y,z\nfour,w\n'
    file = read(tmp_path, "a.csv", text)
    assert [(row.line, dict(row.fields)) for row in file.rows] == [
        (2, {"q": "one\ntwo", "a": "x"}),
        (6, {"q": "four", "a": "w"}),
    ]
    assert file.problems == (
        Problem(4, "empty line"),
        Problem(5, "3 fields; expected 2, as in the header"),
    )


def test_an_open_quotation_mark_is_told_by_the_line_on_which_its_record_begins(
    tmp_path: Path,
) -> None:
    file = read(tmp_path, "a.csv", 'q,a\none,x\n"two,y\nthree,z\n')
    assert places(file) == [(2, 1)]
    assert file.problems[0].line == 3 and "quotation mark" in file.problems[0].what


def test_bytes_of_another_encoding_in_csv_are_told_with_line_and_column(tmp_path: Path) -> None:
    file = read(tmp_path, "a.csv", "q,a\nOù,x\nnaïve,y\n".encode("latin-1"))
    assert [str(problem) for problem in file.problems] == [
        "line 2: not UTF-8 (byte 0xf9 in 'q'); save the file as UTF-8",
        "line 3: not UTF-8 (byte 0xef in 'q'); save the file as UTF-8",
    ]


def test_a_missing_value_of_parquet_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"q": ["x", None], "n": [1.0, None], "l": [["a"], None]}).to_parquet(path)
    fields = [dict(row.fields) for row in read_data_file(path).rows]
    assert fields == [{"q": "x", "n": 1.0, "l": ["a"]}, {"q": None, "n": None, "l": None}]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "x", "expected a data file that ends with .jsonl, .json, .csv, .parquet"),
        ("a.csv", " \n", "is empty"),
        ("a.csv", "x,x\n1,2\n", "a name of its own for every column"),
        ("a.jsonl", '{"a": "é"}'.encode("utf-16-le"), "save it as UTF-8"),
        ("a.json", b'[{"a": "x"}\0]', "save it as UTF-8"),
        ("a.parquet", "no table", "cannot be read as Parquet"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_refused(
    tmp_path: Path, name: str, content: str | bytes, told: str
) -> None:
    with pytest.raises(UserInputError, match="a\\.") as error:
        read(tmp_path, name, content)
    assert told in str(error.value)


def test_a_folder_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="is a folder"):
        read_data_file(tmp_path)
    with pytest.raises(UserInputError, match="correct the path"):
        read_data_file(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "read_file", [read_data_file, lambda path: load_neutral(str(path), 8), read_rankings]
)
def test_a_device_that_never_ends_is_not_read(
    tmp_path: Path, read_file: Callable[[Any], object]
) -> None:
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    with pytest.raises(UserInputError, match="cannot be read"):
        read_file(tmp_path / "endless.csv")


def test_records_of_a_hub_data_set_are_hashed_by_content() -> None:
    ours, same, other = (
        data_file_of("org/name", records) for records in (RECORDS, list(RECORDS), RECORDS[:1])
    )
    assert ours == same and ours.sha256 != other.sha256
    assert places(ours) == [(1, 1), (2, 2)]


def test_a_table_that_is_separated_otherwise_is_told_by_its_header(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"semicolons.*expected commas"):
        read(tmp_path, "a.csv", "question;aligned;violating\na?;b;c\n")
    with pytest.raises(UserInputError, match=r"tabs.*expected commas"):
        read(tmp_path, "b.csv", "question\taligned\tviolating\na?\tb\tc\n")
    assert read(tmp_path, "c.csv", "question,note; more\na?,b\n").columns[1] == "note; more"


def test_an_object_around_all_rows_is_told_once_not_line_by_line(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"single JSON object.*'questions'.*one object a line"):
        read(tmp_path, "a.json", json.dumps({"questions": RECORDS}, indent=2))
    assert len(read(tmp_path, "one.jsonl", json.dumps(RECORDS[0])).rows) == 1


@pytest.mark.parametrize(("name", "content"), [("a.csv", "question,aligned\n"), ("a.json", "[]")])
def test_a_file_without_rows_is_told_as_one(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(UserInputError, match="holds no rows"):
        read(tmp_path, name, content)
