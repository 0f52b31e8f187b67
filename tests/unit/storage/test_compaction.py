import multiprocessing
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from storage import whole_files
from storage.errors import StorageError
from storage.paths import Home
from storage.runs.files import note_checksums
from storage.runs.run import write_run
from storage.sql.catalog import Catalog
from storage.sql.engine import Engine
from storage.sql.view_sources import IN_MEMORY_BYTES
from storage.tables.parquet import publish, read_rows, read_run, write_table
from storage.tables.written import gone, note_written, read_whole_run
from storage.upkeep import compaction
from storage.upkeep.compaction import compact
from tests.unit.same_process import answer_here
from tests.unit.storage_rows import run_row

START = datetime(2026, 1, 1, tzinfo=UTC)
ALL = timedelta(0)


def run(run_id: str, status: str = "completed", **changes: Any) -> dict[str, Any]:
    finished = None if status in ("running", "crashed") else START + timedelta(hours=1)
    return run_row(run_id, status, started_at=START, finished_at=finished) | changes


def answer(run_id: str, seed: int = 0) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "method": "iti",
        "fold": 0,
        "seed": seed,
        "question_id": "q",
        "question": "?",
        "generation": "!",
        "verdict": "true",
    }


def add(home: Home, run_id: str, rows: int = 3, **changes: Any) -> None:
    write_table(home, "answers", run_id, [answer(run_id, seed) for seed in range(rows)])
    write_run(home, run(run_id, **changes))


def merge(home: Home, **options: Any) -> dict[str, int]:
    options = {"older_than": ALL, "min_parts": 1, "pause_seconds": 0.0} | options
    return {one.table: one.parts for one in compact(home, **options)}


def names(home: Home, table: str = "answers") -> list[str]:
    return sorted(path.name for path in (home.tables / table).glob("*.parquet"))


def sorted_rows(home: Home, table: str = "answers") -> list[dict[str, Any]]:
    return sorted(read_rows(home, table), key=str)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_rows_are_the_same_in_fewer_files(home: Home) -> None:
    for number in range(5):
        add(home, f"r{number}", model=f"m{number % 2}")
    before = {table: sorted_rows(home, table) for table in ("runs", "answers")}
    assert merge(home) == {"runs": 5, "answers": 5}
    for table, rows in before.items():
        assert sorted_rows(home, table) == rows
        assert len(names(home, table)) == 1
        found = Catalog(home).query(f"FROM {table}").to_pylist()
        assert sorted(found, key=str) == rows


def test_a_second_compaction_has_nothing_to_do(home: Home) -> None:
    add(home, "r1")
    assert merge(home)
    before = names(home)
    assert merge(home) == {}
    assert names(home) == before


@pytest.mark.parametrize("status", ["running", "crashed", "failed"])
def test_runs_that_did_not_complete_are_left_alone(home: Home, status: str) -> None:
    add(home, "good")
    add(home, "other", status=status)
    merge(home)
    assert "other.parquet" in names(home)
    assert "good.parquet" not in names(home)
    write_run(home, run("other"))
    assert {row["status"] for row in read_rows(home, "runs")} == {"completed"}


def test_runs_that_ended_lately_and_small_tables_are_left_alone(home: Home) -> None:
    add(home, "old")
    add(home, "new", finished_at=datetime.now(UTC) - timedelta(hours=2))
    assert merge(home, older_than=timedelta(days=1), min_parts=2) == {}
    assert merge(home, older_than=timedelta(days=1)) == {"runs": 1, "answers": 1}
    assert merge(home, older_than=timedelta(hours=1)) == {"runs": 1, "answers": 1}


def test_parts_that_belong_to_no_run_are_left_alone(home: Home) -> None:
    add(home, "r1")
    write_table(home, "answers", "unknown", [answer("unknown")])
    merge(home)
    assert "unknown.parquet" in names(home)
    assert len(read_rows(home, "answers")) == 4


def test_a_home_without_tables_has_nothing_to_do(home: Home) -> None:
    assert merge(home) == {}
    assert not home.root.exists()


def test_new_parts_join_earlier_merged_ones_of_their_size(home: Home) -> None:
    for number in range(4):
        add(home, f"a{number}", rows=200)
    merge(home)
    (first,) = names(home)
    add(home, "b", rows=1)
    merge(home)
    # The second file is smaller: the larger one is not written again.
    assert first in names(home)
    for number in range(9):
        add(home, f"c{number}", rows=300)
    merge(home)
    assert len(names(home)) == 1
    assert len(read_rows(home, "answers")) == 4 * 200 + 1 + 9 * 300


def test_a_merged_file_is_in_the_order_of_models_behaviours_and_runs(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 4)
    places = [("m2", "a"), ("m1", "b"), ("m1", "a"), ("m2", "a"), ("m1", "b")]
    for half in (places[:2], places[2:]):
        for number, (model, behaviour) in enumerate(half, start=places.index(half[0])):
            add(home, f"r{number}-{len(half)}", model=model, behaviour=behaviour)
        merge(home)
    runs = {row["run_id"]: (row["model"], row["behaviour"]) for row in read_rows(home, "runs")}
    (path,) = (home.tables / "answers").glob("*.parquet")
    file = pq.ParquetFile(path)
    rows = file.read().to_pylist()
    order = [(*runs[row["run_id"]], row["run_id"], row["seed"]) for row in rows]
    assert order == sorted(order)
    assert [file.metadata.row_group(i).num_rows for i in range(4)] == [4, 4, 4, 3]


def test_one_run_is_read_from_its_part_and_from_a_merged_file(home: Home) -> None:
    for name in ("r1", "r2"):
        add(home, name)
    expected = [answer("r1", seed) for seed in range(3)]
    assert read_run(home, "answers", "r1") == expected
    merge(home)
    assert read_run(home, "answers", "r1") == expected
    assert read_run(home, "answers", "r9") == []


def test_columns_that_old_parts_lack_are_null(home: Home) -> None:
    add(home, "r1")
    path = home.tables / "answers" / "r1.parquet"
    publish(pq.read_table(path).drop_columns(["verdict"]), path)
    add(home, "r2")
    merge(home)
    verdicts = {(row["run_id"], row["verdict"]) for row in read_rows(home, "answers")}
    assert verdicts == {("r1", None), ("r2", "true")}


def test_a_merged_part_cannot_be_written_again(home: Home) -> None:
    add(home, "r1")
    merge(home)
    with pytest.raises(StorageError, match="r1 of answers is finished and was merged"):
        write_table(home, "answers", "r1", [answer("r1")])
    assert len(read_rows(home, "answers")) == 3


def test_a_damaged_part_is_left_as_it_is(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("r1", "r2", "r3"):
        add(home, name)
    damaged = home.tables / "answers" / "r2.parquet"
    content = bytearray(damaged.read_bytes())
    content[40] ^= 4
    damaged.write_bytes(content)
    merge(home)
    assert "r2.parquet is damaged" in caplog.text
    assert damaged.read_bytes() == content
    assert {row["run_id"] for row in read_rows(home, "answers")} == {"r1", "r3"}


def test_every_kind_of_flipped_bit_in_a_merged_file_is_found(home: Home) -> None:
    add(home, "r1")
    merge(home)
    (path,) = (home.tables / "answers").glob("compacted-*.parquet")
    sound = path.read_bytes()
    for place in range(len(sound)):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert read_rows(home, "answers") == [], place


def of_two_merged_files(home: Home) -> list[Path]:
    """Merge a large run, then a small one, whose merged file leaves the first as it is."""
    for name, rows in (("r1", 2000), ("r2", 1)):
        add(home, name, rows)
        (home.runs / name).mkdir(parents=True)
        note_written(home, name, {name})
        note_checksums(home, name)
        merge(home)
    small, large = sorted(
        (home.tables / "answers").glob("compacted-*.parquet"), key=lambda path: path.stat().st_size
    )
    return [large, small]


@pytest.mark.parametrize("lost", [0, 1])
def test_one_of_several_merged_files_that_is_gone_is_missed_by_its_runs(
    home: Home, caplog: pytest.LogCaptureFixture, lost: int
) -> None:
    of_two_merged_files(home)[lost].unlink()
    name, other = ("r1", "r2") if lost == 0 else ("r2", "r1")
    said = f"the rows of the run {name} in {home.tables / 'answers'} are gone"
    (what,) = gone(home, ["answers", "runs"])
    assert what.startswith(f"{said}; `real run {home.runs / name / 'config.yaml'}` runs its")
    with pytest.raises(StorageError, match=said):
        read_whole_run(home, "answers", name)
    assert {row["run_id"] for row in read_whole_run(home, "answers", other)} == {other}
    merge(home)
    assert f"not merged: {said}" in caplog.text
    assert len([*gone(home, ["answers"])]) == 1
    shutil.rmtree(home.runs / name)
    assert list(gone(home, ["answers"])) == []


def test_later_merging_goes_on_knowing_where_runs_went(home: Home) -> None:
    of_two_merged_files(home)
    add(home, "r3", 5000)
    merge(home)
    (one,) = (home.tables / "answers").glob("compacted-*.parquet")
    assert list(gone(home, ["answers"])) == []
    one.unlink()
    assert [what.split()[5] for what in gone(home, ["answers"])] == ["r1", "r2"]


@pytest.mark.parametrize("content", [None, b"", b"\xff\0", b"r1\nr2"])
def test_a_damaged_list_of_what_was_merged_accuses_nobody(
    home: Home, content: bytes | None
) -> None:
    of_two_merged_files(home)
    path = home.tables / "answers/.compacted"
    path.unlink() if content is None else path.write_bytes(content)
    assert list(gone(home, ["answers"])) == []


def test_the_emptied_folder_of_a_table_is_missed_while_others_are_merged(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    of_two_merged_files(home)
    shutil.rmtree(home.tables / "answers")
    merge(home)
    for name in ("r1", "r2"):
        assert f"the rows of the run {name} in {home.tables / 'answers'} are gone" in caplog.text


def test_a_system_that_cannot_swap_folders_is_told_so_and_nothing_is_changed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(home, "r1")
    monkeypatch.setattr(whole_files, "_EXCHANGE", 1 << 30)
    with pytest.raises(StorageError, match="cannot exchange two folders in one step"):
        merge(home)
    assert names(home) == ["r1.parquet"]
    assert len(read_rows(home, "answers")) == 3


def killed_while_it_swaps(root: str, after: bool) -> None:
    def swap(one: Path, other: Path) -> None:
        if after:
            whole_files.swap_folders(one, other)
        os._exit(9)

    compaction.swap_folders = swap  # type: ignore[assignment]
    merge(Home(Path(root)))


@pytest.mark.parametrize("after", [False, True])
def test_a_compaction_that_is_killed_loses_nothing(home: Home, after: bool) -> None:
    for number in range(4):
        add(home, f"r{number}")
    before = {table: sorted_rows(home, table) for table in ("runs", "answers")}
    process = multiprocessing.get_context("spawn").Process(
        target=killed_while_it_swaps, args=(str(home.root), after)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert {table: sorted_rows(home, table) for table in before} == before
    merge(home)
    assert {table: sorted_rows(home, table) for table in before} == before
    assert list(home.tables.glob(".*compacted-*")) == []


def test_a_query_whose_files_are_merged_while_it_runs_begins_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_here(monkeypatch)
    monkeypatch.setattr("storage.sql.view_sources.IN_MEMORY_BYTES", 0)
    for number in range(3):
        add(home, f"r{number}")
    fetch, merged = Engine._fetch, []

    def merge_first(self: Engine, *arguments: Any) -> Any:
        if not merged:
            merged.append(merge(home))
        return fetch(self, *arguments)

    monkeypatch.setattr(Engine, "_fetch", merge_first)
    found = Catalog(home).query("SELECT count(*) AS n FROM answers").to_pylist()
    assert merged == [{"runs": 3, "answers": 3}]
    assert found == [{"n": 9}]


def write_runs(root: str, name: str, count: int) -> None:
    for number in range(count):
        add(Home(Path(root)), f"{name}-{number:02d}")


def compact_again_and_again(root: str, stop: Any) -> None:
    while not stop.is_set():
        compact(Home(Path(root)), ALL, min_parts=2, pause_seconds=0.05)


def count_plainly(folder: Path) -> dict[str, int]:
    """Count rows by run as a program does that knows nothing of this one.

    The files are named: where pyarrow is given the folder, it lists it, asks for each file, and
    says nothing of those that are gone by then.
    """
    files = [str(path) for path in folder.iterdir() if path.suffix == ".parquet"]
    table = ds.dataset(files, format="parquet").to_table(columns=["run_id"])
    counts = table.group_by("run_id").aggregate([("run_id", "count")]).to_pylist()
    return {row["run_id"]: row["run_id_count"] for row in counts}


@pytest.mark.parametrize("in_memory", [IN_MEMORY_BYTES, 0])
def test_readers_see_every_row_once_while_runs_are_written_and_merged(
    home: Home, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    answer_here(monkeypatch)
    monkeypatch.setattr("storage.sql.view_sources.IN_MEMORY_BYTES", in_memory)
    spawn = multiprocessing.get_context("spawn")
    stop, count = spawn.Event(), 20
    writers = [
        spawn.Process(target=write_runs, args=(str(home.root), name, count)) for name in "ab"
    ]
    merger = spawn.Process(target=compact_again_and_again, args=(str(home.root), stop))
    sql = "SELECT run_id, count(*) AS n FROM answers GROUP BY ALL"
    seen: set[str] = set()
    add(home, "first")
    try:
        for process in (*writers, merger):
            process.start()
        while any(writer.is_alive() for writer in writers):
            counts = {r["run_id"]: r["n"] for r in Catalog(home).query(sql).to_pylist()}
            assert set(counts.values()) == {3}
            assert seen <= set(counts)  # what was there once stays
            seen = set(counts)
            try:
                plain = count_plainly(home.tables / "answers")
            except FileNotFoundError:  # merged since it was listed: it says so, and is asked again
                continue
            assert set(plain.values()) == {3}
            assert seen <= set(plain)
    finally:
        stop.set()
        for process in (*writers, merger):
            process.join()
    assert [process.exitcode for process in (*writers, merger)] == [0, 0, 0]
    assert len(read_rows(home, "answers")) == (2 * count + 1) * 3
    assert len(names(home)) < 2 * count
