"""Rows and folders of runs that homes share through a store."""

import json
import logging
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.errors import DamagedArtifactError, StorageError
from storage.paths import Home
from storage.runs.run import alive, find_run, mark_crashed_runs, run_folder, write_run
from storage.runs.sharing import fetch_run, pull, push, pushed_at_end
from storage.shared.backends import FolderObjects
from storage.shared.journal import Journal
from storage.shared.objects import StoreUnavailableError
from storage.sql.catalog import Catalog
from storage.tables.parquet import read_rows, write_table
from storage.upkeep.compaction import compact
from tests.unit.storage_rows import run_row


@pytest.fixture
def homes(tmp_path: Path) -> Callable[[str], Home]:
    return lambda name: Home(tmp_path / name, str(tmp_path / "store"))


def row(run_id: str, status: str = "completed", minutes: int = 0) -> dict[str, Any]:
    return run_row(run_id, status, minutes)


def sample(question_id: str) -> dict[str, Any]:
    return {
        "behaviour": "b",
        "question_id": question_id,
        "answer_id": "0",
        "question": "?",
        "answer": "!",
        "label": 1,
        "category": "c",
        "is_best": True,
        "fold": 0,
    }


def leave_run(home: Home, run_id: str, status: str = "completed", minutes: int = 0) -> None:
    """Leave what a run leaves: a row, samples, a folder."""
    folder = run_folder(home, run_id) / "figures"
    folder.mkdir(parents=True)
    (folder.parent / "config.yaml").write_text(f"name: {run_id}")
    (folder / "scores.png").write_bytes(b"\x89PNG")
    write_table(home, "samples", f"data-of-{run_id}", [sample(run_id)])
    write_run(home, row(run_id, status, minutes))


def run_ids(home: Home) -> list[str]:
    return sorted(row["run_id"] for row in read_rows(home, "runs"))


def objects(tmp_path: Path, prefix: str = "") -> dict[str, int]:
    """Names and times of the store's objects."""
    store = tmp_path / "store"
    names = FolderObjects(str(store)).names(prefix)
    return {name: (store / name).stat().st_mtime_ns for name in names}


def test_another_home_sees_the_rows_of_a_run_and_fetches_its_folder(
    homes: Callable[[str], Home],
) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    other = homes("b")
    query = "SELECT run_id, question_id FROM runs, samples"
    assert Catalog(other).query(query).to_pylist() == [{"run_id": "r1", "question_id": "r1"}]
    assert not other.runs.exists()
    assert find_run(other, None)["run_id"] == "r1"
    assert (run_folder(other, "r1") / "config.yaml").read_text() == "name: r1"
    assert (run_folder(other, "r1") / "figures" / "scores.png").read_bytes() == b"\x89PNG"


def test_a_run_by_name_is_looked_for_in_the_store(homes: Callable[[str], Home]) -> None:
    leave_run(homes("a"), "r1")
    leave_run(homes("a"), "r2", minutes=1)
    push(homes("a"))
    assert find_run(homes("b"), "r1")["run_id"] == "r1"
    assert [path.name for path in homes("b").runs.iterdir()] == ["r1"]
    with pytest.raises(StorageError, match="no run 'r3'"):
        find_run(homes("b"), "r3")


def test_a_run_is_shared_once_it_has_ended(homes: Callable[[str], Home]) -> None:
    here, there = homes("a"), homes("b")
    leave_run(here, "r1")
    with alive(here, "r2"):
        write_run(here, row("r2", "running"))
        write_table(here, "samples", "r2", [sample("r2")])
        push(here)
        pull(there)
        assert run_ids(there) == ["r1"]
        assert len(read_rows(there, "samples")) == 1
    assert mark_crashed_runs(here) == ["r2"]
    push(here)
    pull(there)
    assert {r["run_id"]: r["status"] for r in read_rows(there, "runs")} == {
        "r1": "completed",
        "r2": "crashed",
    }


def test_a_row_that_is_written_again_replaces_the_old_one_everywhere(
    homes: Callable[[str], Home],
) -> None:
    here, there = homes("a"), homes("b")
    leave_run(here, "r1", "failed")
    push(here)
    pull(there)
    write_run(here, row("r1", "completed"))
    push(here)
    pull(there)
    assert [r["status"] for r in read_rows(there, "runs")] == ["completed"]


def test_nothing_is_uploaded_twice_and_nothing_of_others(
    homes: Callable[[str], Home], tmp_path: Path
) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    before = objects(tmp_path)
    push(homes("a"))
    find_run(homes("b"), "r1")
    (run_folder(homes("b"), "r1") / "report.html").write_text("with paths of b")
    push(homes("b"))
    (homes("a").tables / "runs" / "r1.parquet").touch()
    push(homes("a"))
    assert objects(tmp_path) == before


def test_a_home_does_not_speak_for_the_runs_of_another(homes: Callable[[str], Home]) -> None:
    leave_run(homes("a"), "r1", "completed")
    push(homes("a"))
    pull(homes("b"))
    write_run(homes("b"), row("r1", "failed"))
    push(homes("b"))
    for name in ("a", "c"):
        pull(homes(name))
        assert [r["status"] for r in read_rows(homes(name), "runs")] == ["completed"]


def test_what_was_removed_from_a_home_does_not_come_back(homes: Callable[[str], Home]) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    there = homes("b")
    find_run(there, "r1")
    shutil.rmtree(run_folder(there, "r1"))
    (there.tables / "runs" / "r1.parquet").unlink()
    pull(there)
    fetch_run(there, "r1")
    assert run_ids(there) == []
    assert not (run_folder(there, "r1") / "config.yaml").exists()


def test_of_two_files_of_one_name_all_homes_keep_the_newer(homes: Callable[[str], Home]) -> None:
    for name in ("a", "b"):
        leave_run(homes(name), f"r-{name}")
        write_table(homes(name), "samples", "data", [sample(name)])
        push(homes(name))
    for name in ("a", "b", "c"):
        pull(homes(name))
        assert run_ids(homes(name)) == ["r-a", "r-b"]
        found = {r["question_id"] for r in read_rows(homes(name), "samples")}
        assert found == {"r-a", "r-b", "b"}


def test_rows_that_were_merged_stay_where_they_are(homes: Callable[[str], Home]) -> None:
    here, there = homes("a"), homes("b")
    for number in range(3):
        leave_run(here, f"r{number}")
    compact(here, older_than=timedelta(0), min_parts=2, pause_seconds=0)
    push(here)
    pull(there)
    assert run_ids(here) == run_ids(there) == ["r0", "r1", "r2"]
    compact(there, older_than=timedelta(0), min_parts=2, pause_seconds=0)
    leave_run(here, "r3")
    push(here)
    pull(there)
    pull(here)
    assert run_ids(here) == run_ids(there) == ["r0", "r1", "r2", "r3"]


def test_rows_that_are_merged_while_they_come_are_there_once(
    homes: Callable[[str], Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = homes("a"), homes("b")
    leave_run(here, "r1")
    push(here)
    pull(there)
    write_run(here, row("r1", minutes=1))
    push(here)
    download = Journal.download

    def merging(self: Journal, path: str, sha256: str) -> bytes:
        compact(there, older_than=timedelta(0), min_parts=1, pause_seconds=0)
        return download(self, path, sha256)

    monkeypatch.setattr(
        "storage.upkeep.compaction.push", lambda _: None
    )  # it would wait for the pull
    monkeypatch.setattr(Journal, "download", merging)
    pull(there)
    assert run_ids(there) == ["r1"]


class Gone(FolderObjects):
    """A store that nothing can be created in."""

    def _create(self, *_: object) -> bool:
        raise StoreUnavailableError("gone")


def test_what_could_not_be_pushed_is_pushed_next_time_and_no_half_of_it_is_seen(
    homes: Callable[[str], Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_run(homes("a"), "r1")
    with monkeypatch.context() as patch:
        patch.setattr("storage.shared.journal.open_objects", Gone)
        with pytest.raises(StoreUnavailableError, match="gone"):
            push(homes("a"))
    pull(homes("b"))
    assert run_ids(homes("b")) == []
    push(homes("a"))
    pull(homes("b"))
    assert run_ids(homes("b")) == ["r1"]


def test_an_error_of_a_run_is_not_hidden_by_one_of_the_store(
    homes: Callable[[str], Home],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("storage.shared.journal.open_objects", Gone)
    leave_run(homes("a"), "r1")
    with pytest.raises(RuntimeError, match="out of memory"), pushed_at_end(homes("a")):
        raise RuntimeError("out of memory")
    assert "gone" in caplog.text
    with pytest.raises(StoreUnavailableError), pushed_at_end(homes("a")):
        pass


def test_a_run_that_fails_is_shared_too(homes: Callable[[str], Home]) -> None:
    with pytest.raises(RuntimeError), pushed_at_end(homes("a")):
        leave_run(homes("a"), "r1", "failed")
        raise RuntimeError
    pull(homes("b"))
    assert run_ids(homes("b")) == ["r1"]


def test_damaged_rows_are_left_out_with_a_warning_until_they_are_mended(
    homes: Callable[[str], Home], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = homes("a"), homes("b")
    leave_run(here, "r1")
    push(here)
    for name in objects(tmp_path, "files"):
        (tmp_path / "store" / name).write_bytes(b"damaged")
    leave_run(here, "r2")
    push(here)
    with caplog.at_level(logging.WARNING):
        pull(there)
    assert "is damaged in the store" in caplog.text
    assert run_ids(there) == ["r2"]
    (here.shared / "files.json").unlink()  # as the warning says
    push(here)
    pull(there)
    assert run_ids(there) == ["r1", "r2"]


def test_a_damaged_folder_of_a_run_is_an_error_that_says_how_to_mend_it(
    homes: Callable[[str], Home], tmp_path: Path
) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    pull(homes("b"))
    for name in objects(tmp_path, "files"):
        (tmp_path / "store" / name).unlink()
    with pytest.raises(DamagedArtifactError, match=r"missing in the store.*remove .*files.json"):
        find_run(homes("b"), "r1")


@pytest.mark.parametrize(
    "path", ["../x/y", "tables/../../x", "/etc/x/y", "artifacts/x/y", "tables/runs"]
)
def test_the_journal_cannot_name_files_outside_of_tables_and_runs(
    homes: Callable[[str], Home], tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    entry = {"home": "x", "files": {path: "0" * 64}}
    FolderObjects(str(tmp_path / "store")).write("journal/0", json.dumps(entry).encode())
    pull(homes("b"))
    assert f"names a file '{path}'" in caplog.text


def test_a_copy_of_a_home_on_another_path_is_another_home(
    homes: Callable[[str], Home], tmp_path: Path
) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert Journal(homes("a")).home != Journal(homes("b")).home
    assert Journal(homes("a")).home == Journal(homes("a")).home
    leave_run(homes("b"), "r2")
    push(homes("b"))
    pull(homes("a"))
    assert run_ids(homes("a")) == ["r1", "r2"]


def test_a_home_without_a_store_shares_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    leave_run(home, "r1")
    push(home)
    pull(home)
    assert find_run(home, None)["run_id"] == "r1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "tables"]


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"null", b"[1]", b'{"a": {"b": null}}'])
def test_a_damaged_ledger_is_named_and_made_anew(
    homes: Callable[[str], Home], caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    mine, other = homes("mine"), homes("other")
    leave_run(mine, "r1")
    push(mine)
    (mine.shared / "files.json").write_bytes(content)
    pull(mine)
    assert f"{mine.shared / 'files.json'}, which says" in caplog.text and "damaged" in caplog.text
    leave_run(mine, "r2", minutes=1)
    push(mine)
    pull(other)
    assert run_ids(mine) == run_ids(other) == ["r1", "r2"]
    caplog.clear()
    pull(mine)
    assert caplog.text == ""


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"null", b"[1]", None])
def test_a_damaged_copy_of_the_journal_is_fetched_again(
    homes: Callable[[str], Home], content: bytes | None
) -> None:
    mine, other = homes("mine"), homes("other")
    leave_run(mine, "r1")
    push(mine)
    pull(other)
    copy = next((other.shared / "journal").iterdir())
    sound = copy.read_bytes()
    copy.unlink()
    copy.mkdir() if content is None else copy.write_bytes(content)
    fetch_run(other, "r1")
    assert (run_folder(other, "r1") / "config.yaml").read_text() == "name: r1"
    assert copy.read_bytes() == sound


def test_an_identity_that_is_no_text_is_one_nevertheless(homes: Callable[[str], Home]) -> None:
    mine = homes("mine")
    leave_run(mine, "r1")
    mine.shared.mkdir(parents=True)
    (mine.shared / "identity").write_bytes(b"\xff\x00")
    push(mine)
    pull(homes("other"))
    assert run_ids(homes("other")) == ["r1"]
