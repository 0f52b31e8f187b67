import multiprocessing
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import StorageError
from storage.paths import Home
from storage.tables.parquet import (
    DamagedTableError,
    publish,
    read_rows,
    read_run,
    read_table,
    write_table,
)
from storage.tables.rows import SchemaError
from storage.tables.schemas import TABLES


def answer(run: str, **changes: Any) -> dict[str, Any]:
    row = {
        "run_id": run,
        "method": "iti",
        "fold": 0,
        "seed": 0,
        "question_id": "q1",
        "question": "which?",
        "generation": "that",
        "verdict": "true",
    }
    return row | changes


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_what_is_written_is_read_back(home: Home) -> None:
    rows = [answer("r1"), answer("r1", question_id="q2", generation="", verdict="neither")]
    path = write_table(home, "answers", "r1", rows)
    assert path == home.tables / "answers" / "r1.parquet"
    assert read_rows(home, "answers") == rows


def test_parts_are_read_together_in_the_order_of_their_names(home: Home) -> None:
    for run in ("r2", "r1"):
        write_table(home, "answers", run, [answer(run)])
    assert [row["run_id"] for row in read_rows(home, "answers")] == ["r1", "r2"]


def test_a_part_is_replaced_by_its_next_version(home: Home) -> None:
    write_table(home, "answers", "r1", [answer("r1"), answer("r1", seed=1)])
    write_table(home, "answers", "r1", [answer("r1", seed=2)])
    assert [row["seed"] for row in read_rows(home, "answers")] == [2]


def test_a_home_without_the_table_has_no_rows_of_it(home: Home) -> None:
    for name, table in TABLES.items():
        found = read_table(home, name)
        assert found.num_rows == 0
        assert found.schema.names == table.schema.names


def test_an_empty_part_is_a_part(home: Home) -> None:
    write_table(home, "answers", "r1", [])
    write_table(home, "answers", "r2", [answer("r2")])
    assert len(read_rows(home, "answers")) == 1


def test_the_file_carries_the_descriptions(home: Home) -> None:
    schema = pq.read_schema(write_table(home, "answers", "r1", [answer("r1")]))
    assert schema.metadata[b"description"] == TABLES["answers"].description.encode()
    assert b"judge" in schema.field("verdict").metadata[b"description"]


@pytest.mark.parametrize("part", ["", "../r1", "a/b", ".hidden", "/tmp/r"])
def test_a_part_is_a_plain_file_name(home: Home, part: str) -> None:
    with pytest.raises(SchemaError, match="plain file name"):
        write_table(home, "answers", part, [answer("r1")])


def test_rows_that_do_not_fit_leave_the_older_part_untouched(home: Home) -> None:
    write_table(home, "answers", "r1", [answer("r1")])
    with pytest.raises(SchemaError):
        write_table(home, "answers", "r1", [answer("r1", verdict="maybe")])
    assert read_rows(home, "answers") == [answer("r1")]


def test_a_write_that_fails_leaves_neither_a_part_nor_a_temporary_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_a_file(table: pa.Table, file: Any, **options: Any) -> None:
        file.write(b"PAR1half")
        raise OSError("disk full")

    write_table(home, "answers", "r1", [answer("r1")])
    monkeypatch.setattr(pq, "write_table", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        write_table(home, "answers", "r1", [answer("r1", seed=5)])
    monkeypatch.undo()
    assert [path.name for path in (home.tables / "answers").iterdir()] == ["r1.parquet"]
    assert read_rows(home, "answers") == [answer("r1")]


def test_a_temporary_file_of_a_killed_writer_is_not_read(home: Home) -> None:
    path = write_table(home, "answers", "r1", [answer("r1")])
    path.with_name(".r2.parquet-abc").write_bytes(b"PAR1half")
    assert len(read_rows(home, "answers")) == 1


def test_a_damaged_part_is_left_out_and_named_with_the_remedy(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_table(home, "answers", "r1", [answer("r1")])
    write_table(home, "answers", "r2", [answer("r2")])
    path.write_bytes(path.read_bytes()[:-7])
    assert read_rows(home, "answers") == [answer("r2")]
    assert "r1.parquet is damaged" in caplog.text and "remove it" in caplog.text
    with pytest.raises(DamagedTableError, match=r"r1\.parquet is damaged .* remove it"):
        read_run(home, "answers", "r1")


def test_every_flipped_bit_is_found(home: Home) -> None:
    path = write_table(home, "answers", "r1", [answer("r1", seed=seed) for seed in range(3)])
    sound = path.read_bytes()
    for place in range(len(sound)):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(DamagedTableError, match=r"r1\.parquet is damaged"):
            read_run(home, "answers", "r1")
    path.write_bytes(sound)
    assert len(read_run(home, "answers", "r1")) == 3


def test_every_truncation_is_found(home: Home) -> None:
    path = write_table(home, "answers", "r1", [answer("r1")])
    sound = path.read_bytes()
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        with pytest.raises(DamagedTableError, match=r"r1\.parquet is damaged"):
            read_run(home, "answers", "r1")


def test_a_sealed_file_is_an_ordinary_one_to_other_readers(home: Home) -> None:
    path = write_table(home, "answers", "r1", [answer("r1")])
    assert duckdb.read_parquet(str(path)).fetchall() == [tuple(answer("r1").values())]
    assert pd.read_parquet(path.parent).to_dict("records") == [answer("r1")]


def test_a_file_of_an_earlier_version_which_has_no_seal_is_read(home: Home) -> None:
    path = write_table(home, "answers", "r1", [answer("r1")])
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert read_rows(home, "answers") == [answer("r1")]


def test_a_part_from_before_a_column_was_declared_is_read_with_nulls(home: Home) -> None:
    path = write_table(home, "answers", "r1", [answer("r1")])
    publish(pq.read_table(path).drop_columns(["verdict"]), path)
    assert read_rows(home, "answers") == [answer("r1", verdict=None)]


def test_a_part_with_another_type_is_refused(home: Home) -> None:
    path = write_table(home, "answers", "r1", [answer("r1")])
    publish(pa.table({"fold": ["first"]}), path)
    with pytest.raises(DamagedTableError, match="damaged"):
        read_run(home, "answers", "r1")


def write_again_and_again(root: str, run: str) -> None:
    for size in range(1, 60):
        write_table(Home(Path(root)), "answers", run, [answer(run, seed=size)] * size)


def test_readers_see_whole_parts_while_processes_replace_them(home: Home) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=write_again_and_again, args=(str(home.root), run))
        for run in ("r1", "r2")
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        rows = read_rows(home, "answers")
        for run in ("r1", "r2"):
            seeds = [row["seed"] for row in rows if row["run_id"] == run]
            assert not seeds or seeds == [len(seeds)] * len(seeds)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(read_rows(home, "answers")) == 2 * 59


@pytest.mark.parametrize("what", ["a file", "a link to nowhere"])
def test_what_is_no_folder_of_a_table_is_named_and_not_taken_for_an_empty_one(
    home: Home, what: str
) -> None:
    folder = home.tables / "answers"
    folder.parent.mkdir(parents=True)
    folder.write_text("x") if what == "a file" else folder.symlink_to("nowhere")
    with pytest.raises(StorageError, match="answers, the folder of a table, cannot be listed"):
        read_rows(home, "answers")
