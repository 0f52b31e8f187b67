import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage.errors import StorageError
from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.sql.formats import text_of

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


def format_table(table: pa.Table, *layout: Any, width: int | None = None) -> str:
    return "".join(text_of(table, *layout, width=width))


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


def test_texts_are_folded_between_words_and_long_words_within() -> None:
    text = "how many of the best k they share " + "w" * 30
    shown = format_table(pa.table({"id": ["r1"], "text": [text]}), "table", width=29)
    cells = [line.split("│")[2].strip() for line in shown.splitlines() if line.startswith("│")]
    assert cells[:2] == ["how many of the best", "k they share"]
    assert "".join(cells[2:]) == "w" * 30


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
        format_table(TABLE, "xml")


# Values that Python has none for


FAR = {
    "'infinity'::DATE": "infinity",
    "'-infinity'::TIMESTAMP": "-infinity",
    "'infinity'::TIMESTAMPTZ": "infinity",
    "'0044-03-15 (BC)'::DATE": "0044-03-15 (BC)",
    "'0001-12-31 (BC)'::DATE": "0001-12-31 (BC)",
    "'0045-02-29 (BC) 12:00:00'::TIMESTAMP": None,
    "'5881580-07-10'::DATE": "5881580-07-10",
    "'9999-12-31'::DATE + 1": None,
    "'24:00:00'::TIME": "24:00:00",
    "'01:02:03.000004'::TIME": "01:02:03.000004",
    "'10:00:00+02'::TIMETZ": "10:00:00+02",
    "INTERVAL '14 months 3 days 90 seconds'": "1 year 2 months 3 days 00:01:30",
    "union_value(k := 1)": "1",
    "'10101'::BIT": "10101",
    "'b'::ENUM ('a', 'b')": "b",
    "340282366920938463463374607431768211455::UHUGEINT": "340282366920938463463374607431768211455",
    "170141183460469231731687303715884105727::HUGEINT": "170141183460469231731687303715884105727",
    "[INTERVAL '1 day']": "[1 day]",
    "'2026-01-02 03:04:05.123456789'::TIMESTAMP_NS": "2026-01-02T03:04:05.123456789",
}


@pytest.mark.parametrize(("sql", "expected"), FAR.items())
def test_values_are_written_as_the_engine_shows_them(
    tmp_path: Path, sql: str, expected: str | None
) -> None:
    found = Catalog(Home(tmp_path)).query(f"SELECT {sql} AS x, ({sql})::VARCHAR AS shown")
    record = json.loads(format_table(found, "json"))[0]
    assert str(record["x"]).replace("T", " ") == record["shown"]
    assert expected in (None, str(record["x"]))
    assert csv.reader(io.StringIO(format_table(found, "csv"))).__next__() == ["x", "shown"]
    format_table(found, "table")


def test_every_day_of_nine_centuries_is_written_as_the_engine_shows_it(tmp_path: Path) -> None:
    days = "range('0401-01-01 (BC)'::TIMESTAMP, '0500-01-01'::TIMESTAMP, INTERVAL 1 DAY)"
    sql = f"SELECT d::DATE AS x, d::DATE::VARCHAR AS shown FROM {days} t(d)"
    records = json.loads(format_table(Catalog(Home(tmp_path)).query(sql), "json"))
    assert len(records) > 900 * 365
    assert all(record["x"] == record["shown"] for record in records)


def test_times_within_lists_structs_and_maps_are_written_too() -> None:
    day = pa.array([2**31 - 1, 0, None], pa.int32()).cast(pa.date32())
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 3, 3]), day)
    structs = pa.StructArray.from_arrays([day], ["d"])
    maps = pa.MapArray.from_arrays([0, 1, 2, 2], pa.array(["a", "b", "c"]), day)
    found = json.loads(format_table(pa.table({"l": lists, "s": structs, "m": maps}), "json"))
    assert found == [
        {"l": ["infinity", "1970-01-01"], "s": {"d": "infinity"}, "m": {"a": "infinity"}},
        {"l": [None], "s": {"d": "1970-01-01"}, "m": {"b": "1970-01-01"}},
        {"l": [], "s": {"d": None}, "m": {}},
    ]


# Many rows, and characters that a terminal obeys


def test_a_table_shows_as_many_rows_as_asked_for_and_says_how_many_there_are() -> None:
    table = pa.table({"n": range(30)})
    shown = "".join(text_of(table, "table", 80, most=3))
    assert [line for line in shown.splitlines() if line.startswith("│")] == [
        *("│ 0 │", "│ 1 │", "│ 2 │")
    ]
    assert shown.endswith("(30 rows; the first 3 are shown, all with --all)\n")
    assert len("".join(text_of(table, "csv", most=3)).splitlines()) == 31


def test_a_table_of_more_rows_than_are_held_at_a_time_has_them_all() -> None:
    values = [*range(25_000)]
    shown = format_table(pa.table({"n": values}), "table", width=80)
    assert [int(line.strip("│ ")) for line in shown.splitlines() if line[0] == "│"] == values
    assert len(json.loads(format_table(pa.table({"n": values}), "json"))) == 25_000


def test_control_characters_of_values_and_names_are_escaped_in_a_table() -> None:
    table = pa.table({"na\x1bme": ["a\x1b[31mb\x07\x9b", "two\nlines", "\u202eabc"]})
    shown = format_table(table, "table", width=80)
    assert not set(shown) & set("\x1b\x07\x9b\u202e")
    assert "a\\x1b[31mb\\x07\\x9b" in shown
    assert "│ two " in shown


def test_wide_characters_are_counted_as_wide() -> None:
    shown = format_table(pa.table({"t": ["日本語", "abcdef"]}), "table", width=80)
    assert "│ 日本語 │" in shown
    assert "│ abcdef │" in shown
