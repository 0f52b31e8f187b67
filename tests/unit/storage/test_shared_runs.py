"""Rows and folders of runs that homes share through a store."""

import json
import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.store import ArtifactRef
from storage.errors import DamagedArtifactError, StorageError
from storage.paths import Home
from storage.references import digest_of
from storage.runs.run import alive, find_run, mark_crashed_runs, run_folder, write_run
from storage.runs.sharing import pull, push, pushed_at_end
from storage.runs.used import note_used
from storage.shared.objects import Objects, StoreUnavailableError
from storage.sql.catalog import Catalog
from storage.tables.parquet import read_rows, write_table
from storage.upkeep.compaction import compact
from tests.unit.storage_rows import run_row


@pytest.fixture
def homes(tmp_path: Path) -> Callable[[str], Home]:
    Objects(str(tmp_path / "store")).check(used=False)
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
    use_data(home, run_id, f"data-of-{run_id}", run_id)
    write_run(home, row(run_id, status, minutes))


def use_data(home: Home, run_id: str, key: str, question_id: str) -> None:
    """Leave the samples of a data set, which several runs may use."""
    note_used(home, run_id, [ArtifactRef(kind="dataset", key=key, digest="0")])
    write_table(home, "samples", key, [sample(question_id)])


def run_ids(home: Home) -> list[str]:
    return sorted(row["run_id"] for row in read_rows(home, "runs"))


def objects(tmp_path: Path, part: str = "") -> dict[Path, int]:
    """The store's objects, with their times."""
    found = (tmp_path / "store").rglob("*")
    return {path: path.stat().st_mtime_ns for path in found if path.is_file() and part in str(path)}


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


def test_a_run_is_seen_by_others_as_it_was_when_it_ended(homes: Callable[[str], Home]) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    (run_folder(homes("a"), "r1") / "config.yaml").write_text("written again")
    push(homes("a"))
    find_run(homes("b"), "r1")
    assert (run_folder(homes("b"), "r1") / "config.yaml").read_text() == "name: r1"


def test_what_was_removed_from_a_home_does_not_come_back(homes: Callable[[str], Home]) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    there = homes("b")
    find_run(there, "r1")
    shutil.rmtree(run_folder(there, "r1"))
    (there.tables / "runs" / "r1.parquet").unlink()
    pull(there)
    assert run_ids(there) == []
    with pytest.raises(StorageError, match="no run 'r1'"):
        find_run(there, "r1")
    assert not run_folder(there, "r1").exists()


def test_rows_that_several_runs_share_are_in_every_home_once(
    homes: Callable[[str], Home],
) -> None:
    for name in ("a", "b"):
        leave_run(homes(name), f"r-{name}")
        use_data(homes(name), f"r-{name}", "data", "shared")
        push(homes(name))
    for name in ("a", "b", "c"):
        pull(homes(name))
        assert run_ids(homes(name)) == ["r-a", "r-b"]
        found = sorted(r["question_id"] for r in read_rows(homes(name), "samples"))
        assert found == ["r-a", "r-b", "shared"]


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


def test_rows_that_are_merged_while_others_come_are_there_once(
    homes: Callable[[str], Home],
) -> None:
    here, there = homes("a"), homes("b")
    expected = [f"r{number:02}" for number in range(6)]
    done = threading.Event()

    def leave() -> None:
        for run_id in expected:
            leave_run(here, run_id)
            push(here)

    def merge() -> None:
        while not done.is_set():
            compact(there, older_than=timedelta(0), min_parts=1, pause_seconds=0.01)

    with ThreadPoolExecutor(2) as pool:
        merged, left = pool.submit(merge), pool.submit(leave)
        while len(seen := run_ids(there)) < len(expected):
            assert len(set(seen)) == len(seen)
            pull(there)
        done.set()
        merged.result(), left.result()
    assert run_ids(there) == expected
    assert sorted(r["question_id"] for r in read_rows(there, "samples")) == expected


def test_rows_that_came_before_a_kill_and_were_merged_since_do_not_come_again(
    homes: Callable[[str], Home],
) -> None:
    here, there = homes("a"), homes("b")
    leave_run(here, "r1")
    push(here)
    pull(there)
    (there.shared / "known" / "run-r1").unlink()  # it was killed before it noted that
    compact(there, older_than=timedelta(0), min_parts=1, pause_seconds=0)
    pull(there)
    assert run_ids(there) == ["r1"]


def test_who_reads_a_run_that_came_finds_its_other_rows_too(
    homes: Callable[[str], Home],
) -> None:
    there, ended = homes("c"), threading.Event()

    def leave(name: str) -> None:
        for number in range(3):
            leave_run(homes(name), f"{name}{number}")
            push(homes(name))

    def take() -> None:
        while not ended.wait(0.01):
            pull(there)

    with ThreadPoolExecutor(4) as pool:
        makers = [pool.submit(leave, name) for name in "ab"]
        takers = [pool.submit(take) for _ in range(2)]
        while len(runs := run_ids(there)) < 6:
            assert {*runs} <= {r["question_id"] for r in read_rows(there, "samples")}
        ended.set()
        for one in (*makers, *takers):
            one.result()
    assert len({*runs}) == 6


class Gone(Objects):
    """A store that nothing can be created in."""

    def create(self, *_: object) -> bool:
        raise StoreUnavailableError("gone")


def test_what_could_not_be_pushed_is_pushed_next_time_and_no_half_of_it_is_seen(
    homes: Callable[[str], Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_run(homes("a"), "r1")
    with monkeypatch.context() as patch:
        patch.setattr("storage.shared.remote.Objects", Gone)
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
    monkeypatch.setattr("storage.shared.remote.Objects", Gone)
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
    for path in objects(tmp_path, "/tables/runs/"):
        path.write_bytes(b"damaged")
    leave_run(here, "r2")
    push(here)
    with caplog.at_level(logging.WARNING):
        pull(there)
    assert "does not have its recorded sha256" in caplog.text
    assert run_ids(there) == ["r2"]
    assert [row["question_id"] for row in read_rows(there, "samples")] == ["r2"]
    # As the warning says.
    assert "remove its manifest.json" in caplog.text and "known/run-<run>" in caplog.text
    (tmp_path / "store" / "artifacts" / "run" / "r1" / "manifest.json").unlink()
    (here.shared / "known" / "run-r1").unlink()
    push(here)
    pull(there)
    assert run_ids(there) == ["r1", "r2"]


def test_a_damaged_folder_of_a_run_is_an_error_that_says_how_to_mend_it(
    homes: Callable[[str], Home], tmp_path: Path
) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    pull(homes("b"))
    for path in objects(tmp_path, "/runs/r1/config"):
        path.unlink()
    with pytest.raises(DamagedArtifactError, match=r"config.yaml is missing.*to mend a run"):
        find_run(homes("b"), "r1")
    assert not run_folder(homes("b"), "r1").exists()


@pytest.mark.parametrize("content", [b"", b"null", b'{"digest": ', b'{"a": {"b": null}}', b"[1]"])
def test_a_run_whose_manifest_is_damaged_is_left_out_with_a_warning(
    homes: Callable[[str], Home], tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    for run_id in ("r1", "r2"):
        leave_run(homes("a"), run_id)
    push(homes("a"))
    path = tmp_path / "store" / "artifacts" / "run" / "r1" / "manifest.json"
    path.write_bytes(content)
    pull(homes("b"))
    assert run_ids(homes("b")) == ["r2"]
    assert f"{path} is damaged" in caplog.text and "to mend a run" in caplog.text


def test_rows_whose_seal_is_broken_are_not_shared(
    homes: Callable[[str], Home], caplog: pytest.LogCaptureFixture
) -> None:
    here = homes("a")
    for run_id in ("r1", "r2"):
        leave_run(here, run_id)
    part = here.tables / "samples" / "data-of-r1.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    push(here)
    assert f"the run r1 is not shared: {part} is damaged" in caplog.text
    pull(homes("b"))
    assert run_ids(homes("b")) == ["r2"]


@pytest.mark.parametrize(
    "path",
    [
        "../x/y",
        "tables/../../x.parquet",
        "/etc/x/y",
        "artifacts/x/y",
        "tables/runs",
        "runs/r2/x",
        "runs/r1/../../x",
        "tables/runs/.r1.parquet",
        "tables/runs/compacted-1.parquet",
    ],
)
def test_a_run_cannot_name_files_outside_of_its_own(
    homes: Callable[[str], Home], tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = {path: "0" * 64}
    manifest = {"kind": "run", "key": "r1", "digest": digest_of("run", files), "files": files}
    content = json.dumps(manifest | {"facts": {}, "inputs": None}).encode()
    Objects(str(tmp_path / "store")).write("artifacts/run/r1/manifest.json", content)
    pull(homes("b"))
    assert f"a file '{path}'" in caplog.text


def test_a_copy_of_a_home_on_another_path_is_another_home(
    homes: Callable[[str], Home], tmp_path: Path
) -> None:
    leave_run(homes("a"), "r1")
    push(homes("a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
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


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"link", None])
def test_what_a_home_noted_of_a_run_may_be_damaged(
    homes: Callable[[str], Home], tmp_path: Path, content: bytes | None
) -> None:
    mine, other = homes("mine"), homes("other")
    leave_run(mine, "r1")
    push(mine)
    pull(other)
    before = objects(tmp_path, "/store/")
    for home in (mine, other):
        note = home.shared / "known" / "run-r1"
        note.unlink()
        if content is None:
            note.mkdir()
        elif content == b"link":
            note.symlink_to("nowhere/at/all")
        else:
            note.write_bytes(content)
        push(home)
        pull(home)
        assert run_ids(home) == ["r1"]
    assert objects(tmp_path, "/store/") == before
