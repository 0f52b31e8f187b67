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


LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)
ARRAY = json.dumps(RECORDS, ensure_ascii=False)
SPREAD = "\n".join(json.dumps(record, indent=1) for record in RECORDS)
SPELLINGS: dict[str, str | bytes] = {
    "lines.jsonl": LINES,
    "lines.json": LINES,
    "utf16.jsonl": LINES.encode("utf-16"),
    "utf16be.jsonl": ("\ufeff" + LINES).encode("utf-16-be"),
    "utf32.jsonl": LINES.encode("utf-32"),
    "marks.jsonl": "\ufeff\ufeff" + LINES.replace("\n", "\r\n"),
    "together.jsonl": LINES.replace("\n", "\n\ufeff"),
    "classic.jsonl": LINES.replace("\n", "\r"),
    **{
        f"ends{n}.jsonl": LINES + end
        for n, end in enumerate(("\n\r\n \n", "\x1a", "\t\n\f\n\v", "\xa0\n\u200b\n", "\u2028"))
    },
    "array.json": json.dumps(RECORDS, indent=1),
    "comma.json": ARRAY[:-1] + ",\n ]\n",
    "mark.json": "\ufeff" + ARRAY + "\n\x1a",
    "utf16.json": ARRAY.encode("utf-16"),
    "spread.json": SPREAD,
    "spread.jsonl": "\ufeff\n" + SPREAD.replace("\n", "\r\n"),
    "end to end.jsonl": LINES.replace("\n", ""),
    "commas.json": LINES.strip().replace("\n", ",\n"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_records_in_json_gives_them(tmp_path: Path, name: str) -> None:
    file = read(tmp_path, name, SPELLINGS[name])
    assert [dict(row.fields) for row in file.rows] == RECORDS
    assert file.columns == ("question", "aligned") and not file.problems


def test_parquet_gives_the_same_records(tmp_path: Path) -> None:
    pd.DataFrame(RECORDS).to_parquet(tmp_path / "a.parquet")
    file = read_data_file(tmp_path / "a.parquet")
    assert [dict(row.fields) for row in file.rows] == RECORDS and file.format == "parquet"


def test_objects_over_several_lines_have_the_lines_on_which_they_begin(tmp_path: Path) -> None:
    assert places(read(tmp_path, "a.jsonl", SPREAD)) == [(1, 1), (8, 2)]
    file = read(tmp_path, "b.jsonl", SPREAD + "\n{oops")
    assert places(file) == [(1, 1), (8, 2)] and file.problems[0].line == 14
    assert read(tmp_path, "c.json", json.dumps(RECORDS[1], indent=2)).rows[0].fields == RECORDS[1]


@pytest.mark.parametrize(
    "text",
    [
        "q,a\nx,y\n\n \n",
        "q,a\nx,y\n,,\n",
        "q,a\r\nx,y\r\n\r\n",
        "\n\nq,a\nx,y\n\x1a",
        "q,a\rx,y\r,",
    ],
)
def test_what_programs_put_around_a_table_is_no_row(tmp_path: Path, text: str) -> None:
    file = read(tmp_path, "a.csv", text.replace(",,", ","))
    assert [dict(row.fields) for row in file.rows] == [{"q": "x", "a": "y"}] and not file.problems


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


def test_bad_json_lines_are_told_by_number_and_blank_ones_hold_nothing(
    tmp_path: Path,
) -> None:
    text = b'{"a": 1}\n\n{"a": \n[1, 2]\n{"a": "caf\xe9"}\n{"b": 2}\n'
    file = read(tmp_path, "a.jsonl", text)
    assert places(file) == [(1, 1), (6, 6)]
    assert [problem.line for problem in file.problems] == [3, 4, 5]
    what = [problem.what for problem in file.problems]
    assert "invalid JSON" in what[0] and "a list; expected an object" in what[1]
    assert "not UTF-8 (byte 0xe9 in 'a')" in what[2]
    assert file.columns == ("a", "b")


def test_csv_rows_begin_where_their_quoted_fields_begin(tmp_path: Path) -> None:
    text = 'q,a\n"one\ntwo",x\n\n"three",y,z\nfour,w\n'
    file = read(tmp_path, "a.csv", text)
    assert [(row.line, dict(row.fields)) for row in file.rows] == [
        (2, {"q": "one\ntwo", "a": "x"}),
        (6, {"q": "four", "a": "w"}),
    ]
    assert file.problems == (Problem(5, "3 fields; expected 2, as in the header"),)


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
        ("a.json", '[{"a": "x"}]'.encode("utf-16")[:-1], "damaged or cut off"),
        ("a.parquet", "no table", "cannot be read as Parquet"),
        ("a.json", '{"data": [{"a": 1}]}', "seem to be in its field 'data'"),
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
    with pytest.raises(UserInputError, match="correct the path"):
        read_data_file("~nobody-of-this-name/a.csv")


@pytest.mark.parametrize(
    "read_file", [read_data_file, lambda path: load_neutral(str(path), 8), read_rankings]
)
def test_a_device_that_never_ends_is_not_read(
    tmp_path: Path, read_file: Callable[[Any], object]
) -> None:
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    with pytest.raises(UserInputError, match="cannot be read"):
        read_file(tmp_path / "endless.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.txt"])
def test_a_pointer_of_git_lfs_is_told_whatever_it_stands_for(
    tmp_path: Path, name: str, end: str
) -> None:
    oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{oid}", "size 12345", "")
    path = written(tmp_path, name, end.join(lines))
    readers = [lambda: load_neutral(str(path), 8), lambda: read_rankings(path)]
    for look in readers + ([lambda: read_data_file(path)] if name != "a.txt" else []):
        with pytest.raises(UserInputError, match=r"git-lfs pointer.*git lfs pull"):
            look()


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
