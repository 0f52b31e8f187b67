import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from storage.errors import StorageError
from storage.formats import format_table

TABLE = pa.table(
    {
        "method": ["real", None, ""],
        "value": [0.1 + 0.2, float("nan"), 1e-7],
        "k": pa.array([8, None, 2**53 + 1], pa.int64()),
        "at": pa.array([datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), None, None]),
        "list": [[0.1, 2.0], None, []],
        "flag": [True, False, None],
    }
)


def test_json_is_a_list_of_exact_records() -> None:
    records = json.loads(format_table(TABLE, "json"))
    assert records[0] == {
        "method": "real",
        "value": 0.1 + 0.2,
        "k": 8,
        "at": "2026-01-02T03:04:05.000678+00:00",
        "list": [0.1, 2.0],
        "flag": True,
    }
    assert records[1]["value"] == "NaN"
    assert records[2]["k"] == 2**53 + 1


def test_json_without_rows_is_an_empty_list() -> None:
    assert json.loads(format_table(TABLE.slice(0, 0), "json")) == []


def test_json_is_strict_where_floats_are_not_finite() -> None:
    table = pa.table({"x": [float("inf"), float("-inf"), 1.0]})
    found = json.loads(format_table(table, "json"), parse_constant=pytest.fail)
    assert [record["x"] for record in found] == ["Infinity", "-Infinity", 1.0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("12345678901234567890"), 12345678901234567890),
        (Decimal("0.5"), 0.5),
        (Decimal("0.1234567890123456789"), "0.1234567890123456789"),
        (date(2026, 1, 2), "2026-01-02"),
        (b"\x01\xff", "01ff"),
        ({"a": [1, None]}, {"a": [1, None]}),
    ],
)
def test_json_keeps_what_it_has_no_type_for(value: Any, expected: Any) -> None:
    assert json.loads(format_table(pa.table({"x": [value]}), "json")) == [{"x": expected}]


def test_repeated_names_are_numbered() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert json.loads(format_table(table, "json")) == [{"a": 1, "a_2": 2}]


def test_csv_tells_null_from_empty_text_and_keeps_every_digit() -> None:
    lines = format_table(TABLE, "csv").splitlines()
    assert lines == [
        "method,value,k,at,list,flag",
        'real,0.30000000000000004,8,2026-01-02T03:04:05.000678+00:00,"[0.1, 2.0]",true',
        ",NaN,,,,false",
        '"",1e-07,9007199254740993,,[],',
    ]


def test_csv_is_read_back_whatever_the_text() -> None:
    texts = ['say "hi"', "a,b", "two\nlines", " blanks ", "ü", "cr\r"]
    written = format_table(pa.table({"t": texts}), "csv")
    assert [row["t"] for row in csv.DictReader(io.StringIO(written, newline=""))] == texts


def test_the_table_rounds_for_the_eye_and_counts_rows() -> None:
    shown = format_table(TABLE, "table", width=120)
    assert "│   0.3 │" in shown
    assert "0.30000000000000004" not in shown
    assert "9007199254740993" in shown
    assert "2026-01-02 03:04:05+00:00" in shown
    assert shown.endswith("(3 rows)\n")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_fits_the_width_and_cuts_no_text(width: int) -> None:
    text = "x" * 90
    shown = format_table(pa.table({"id": ["r1"], "text": [text]}), "table", width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert shown.count("x") == 90 + 1  # and the one in the header


def test_a_table_with_too_many_columns_becomes_a_block_a_row() -> None:
    table = pa.table({f"column_{index}": [index, index + 0.5] for index in range(20)})
    shown = format_table(table, "table", width=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "column_19  19.5" in shown
    assert shown.endswith("(2 rows)\n")


def test_long_lists_are_shortened_for_people_only() -> None:
    table = pa.table({"head_00": [[float(index) for index in range(128)]]})
    assert "[0, 1, 2, … 128 in all]" in format_table(table, "table", width=80)
    assert len(json.loads(format_table(table, "json"))[0]["head_00"]) == 128


def test_markup_in_text_is_shown_as_it_is() -> None:
    assert "[bold]x[/bold]" in format_table(pa.table({"t": ["[bold]x[/bold]"]}), "table", width=80)


def test_a_result_without_rows_still_shows_its_columns() -> None:
    assert format_table(TABLE.slice(0, 0), "table") == (
        "(no rows; columns: method, value, k, at, list, flag)\n"
    )


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(StorageError, match="'xml'; expected table, csv or json"):
        format_table(TABLE, "xml")  # type: ignore[arg-type]
