import json
import os
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import StorageError
from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.sql.exports import check_target, export
from storage.sql.formats import text_of

FileFormat = Literal["parquet", "csv", "json", "table"]
TABLE = pa.table({"a": [1, 2], "b": ["x", None], "c": [[0.5], []]})


HOME = Home(Path("/nowhere"))


def content(output: FileFormat) -> Any:
    return TABLE if output == "parquet" else text_of(TABLE, output)


def test_parquet_keeps_types_and_values(tmp_path: Path) -> None:
    export(TABLE, tmp_path / "t.parquet", HOME)
    assert pq.read_table(tmp_path / "t.parquet").equals(TABLE)


@pytest.mark.parametrize("output", ["csv", "json", "table"])
def test_texts_are_those_that_are_printed(tmp_path: Path, output: FileFormat) -> None:
    export(content(output), tmp_path / "t", HOME)
    assert output != "parquet"
    assert (tmp_path / "t").read_text() == "".join(text_of(TABLE, output))


def test_columns_of_one_name_are_numbered(tmp_path: Path) -> None:
    twice = pa.table([[1], [2]], names=["n", "n"])
    export(twice, tmp_path / "t.parquet", HOME)
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == [{"n": 1, "n_2": 2}]


@pytest.mark.parametrize("output", ["parquet", "json"])
def test_a_file_that_is_there_is_replaced_only_if_asked(tmp_path: Path, output: FileFormat) -> None:
    path = tmp_path / "mine"
    path.write_text("precious")
    with pytest.raises(StorageError, match="is there already; .*--force"):
        export(content(output), path, HOME)
    assert path.read_text() == "precious"
    export(content(output), path, HOME, overwrite=True)
    assert path.read_bytes() != b"precious"
    assert [found.name for found in tmp_path.iterdir()] == ["mine"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    outputs: list[FileFormat] = ["json", "parquet"]
    for output in outputs:
        with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\)"):
            export(content(output), tmp_path / "t", HOME)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_is_refused_before_the_query_runs(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is no folder"):
        check_target(tmp_path / "none" / "t.csv", HOME, overwrite=True)
    with pytest.raises(StorageError, match="is a folder"):
        check_target(tmp_path, HOME, overwrite=True)


def test_json_in_a_file_is_json(tmp_path: Path) -> None:
    export(content("json"), tmp_path / "t.json", HOME)
    assert json.loads((tmp_path / "t.json").read_text())[0] == {"a": 1, "b": "x", "c": [0.5]}


# Where nothing may be written


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    (found.tables / "runs").mkdir(parents=True)
    return found


def test_nothing_is_written_into_a_home_however_it_is_named(tmp_path: Path, home: Home) -> None:
    (tmp_path / "link").symlink_to(home.root)
    (tmp_path / "other").mkdir()
    ways = ["home", "home/tables/runs", "link/tables", "other/../home/tables", "home/./tables/runs"]
    for way in ways:
        with pytest.raises(StorageError, match="belongs to runs"):
            export(TABLE, tmp_path / way / "x.parquet", home)
    other = Home(tmp_path / "other")
    other.tables.mkdir()
    other.artifacts.mkdir()
    with pytest.raises(StorageError, match="belongs to runs"):
        export(content("csv"), other.tables / "x.csv", home)
    with pytest.raises(StorageError, match="belongs to runs"):
        export(content("csv"), other.root / "x.csv", Home(home.root, str(other.root)))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_that_is_linked_into_a_home_stays_as_it_is_there(tmp_path: Path, home: Home) -> None:
    inside = home.tables / "runs" / "r.parquet"
    inside.write_text("precious")
    (tmp_path / "r.csv").hardlink_to(inside)
    export(content("csv"), tmp_path / "r.csv", home, overwrite=True)
    assert inside.read_text() == "precious"


def test_links_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "link", "loop"):
        with pytest.raises(StorageError, match="--to does not replace"):
            export(content("csv"), tmp_path / name, HOME, overwrite=True)
    for device in ("/dev/null", "/dev/stdout"):
        with pytest.raises(StorageError, match="--to does not replace"):
            check_target(Path(device), HOME, overwrite=True)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a/" * 3000 + "x", "nul\0", "loop/x"])
def test_a_name_that_no_file_can_have_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StorageError):
        check_target(tmp_path / name, HOME, overwrite=True)


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("INTERVAL 3 DAYS", "x is INTERVAL"),
        ("union_value(k := 1)", r"x is UNION\(k INTEGER\)"),
        ("'10:00:00+02'::TIMETZ", "x is TIME WITH TIME ZONE"),
        ("'101'::BIT", "x is BIT"),
        ("[INTERVAL 3 DAYS]", r"x is INTERVAL\[\]"),
        ("'infinity'::DATE", r"x \(date32\[day\]\) holds a time without end"),
        ("['-infinity'::TIMESTAMP]", "holds a time without end"),
        ("{'t': 'infinity'::TIMESTAMPTZ}", "holds a time without end"),
        ("map {1: 'infinity'::DATE}", "holds a time without end"),
        ("170141183460469231731687303715884105727::HUGEINT", "holds a number of 39 digits"),
    ],
)
def test_what_parquet_cannot_hold_is_refused_by_column_and_type(
    tmp_path: Path, sql: str, found: str
) -> None:
    table = Catalog(HOME).query(f"SELECT {sql} AS x")
    with pytest.raises(StorageError, match=found):
        export(table, tmp_path / "x.parquet", HOME)
    assert not list(tmp_path.iterdir())
    export(text_of(table, "csv"), tmp_path / "x.csv", HOME)


@pytest.mark.parametrize(
    "sql", ["'99999-01-01'::DATE", "'0044-03-15 (BC)'::TIMESTAMP", "12::HUGEINT"]
)
def test_what_parquet_can_hold_is_written_exactly(tmp_path: Path, sql: str) -> None:
    table = Catalog(HOME).query(f"SELECT {sql} AS x")
    export(table, tmp_path / "x.parquet", HOME)
    assert pq.read_table(tmp_path / "x.parquet").equals(table)
