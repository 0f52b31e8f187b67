"""What is removed from a home, and what never is."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.store import ArtifactRef, ArtifactStore
from storage.paths import Home
from storage.runs.run import alive, run_folder, write_run
from storage.runs.used import USED, in_use, note_used
from storage.stack_state import only_stack
from storage.tables.parquet import read_rows
from storage.upkeep.cleaning import CleaningPolicy, Removable, removable, remove
from tests.unit.storage_rows import run_row

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OLD = NOW - timedelta(days=40)
POLICY = CleaningPolicy(artifact_days=7, run_days=7, statuses=("crashed",), log_days=30)


@pytest.fixture
def place(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def make(home: Home, kind: str, key: str, inputs: Any = None, age: datetime = OLD) -> ArtifactRef:
    def write(folder: Path) -> dict[str, Any]:
        (folder / "data.bin").write_bytes(b"x" * 1000)
        return {}

    ref = ArtifactStore(home).make(kind, key, write, inputs)
    age_of(home.artifacts / kind / key, age)
    return ref


def age_of(path: Path, time: datetime) -> None:
    for one in [*path.rglob("*"), path]:
        os.utime(one, (time.timestamp(), time.timestamp()))


def run(home: Home, run_id: str, status: str, refs: list[ArtifactRef], at: datetime = OLD) -> None:
    run_folder(home, run_id).mkdir(parents=True)
    note_used(home, run_id, refs)
    row = run_row(run_id, status, started_at=at, finished_at=None, seed=0, config_digest="0")
    write_run(home, row)


def found(home: Home, what: str) -> set[str]:
    return {one.name for one in removable(home, POLICY, NOW) if one.what == what}


def test_what_a_kept_run_uses_stays_and_all_that_it_was_made_from(place: Home) -> None:
    source = make(place, "dataset", "d1")
    middle = make(place, "activations", "a1", {"shard": {"dataset": source.model_dump()}})
    top = make(place, "scores", "s1", {"activations": [middle.model_dump()]})
    make(place, "scores", "s2", {"activations": [middle.model_dump()]})
    run(place, "kept", "completed", [top])
    assert found(place, "artifact") == {"scores/s2"}


def test_references_in_the_record_of_a_run_count_too(place: Home) -> None:
    ref = make(place, "evaluation", "e1")
    run(place, "kept", "completed", [])
    record = run_folder(place, "kept") / "run.json"
    record.write_text(f'{{"outcome": {{"evaluations": [{ref.model_dump_json()}]}}}}')
    assert found(place, "artifact") == set()


def test_an_artifact_that_no_run_uses_stays_while_it_is_young(place: Home) -> None:
    make(place, "scores", "young", age=NOW - timedelta(days=6))
    make(place, "scores", "old", age=NOW - timedelta(days=8))
    assert found(place, "artifact") == {"scores/old"}


def test_crashed_runs_go_when_they_are_old_with_their_rows_and_what_only_they_used(
    place: Home,
) -> None:
    shared, own = make(place, "scores", "shared"), make(place, "scores", "own")
    run(place, "kept", "completed", [shared])
    run(place, "lost", "crashed", [shared, own])
    run(place, "recent", "crashed", [], at=NOW - timedelta(days=1))
    run(place, "failed", "failed", [])
    assert found(place, "run") == {"lost"}
    gone = remove(place, removable(place, POLICY, NOW))
    assert {one.name for one in gone} == {"lost", "scores/own"}
    assert {row["run_id"] for row in read_rows(place, "runs")} == {"kept", "recent", "failed"}
    assert not run_folder(place, "lost").exists()
    assert ArtifactStore(place).open(shared).is_dir()


def test_failed_runs_go_where_that_is_asked_for(place: Home) -> None:
    run(place, "failed", "failed", [])
    policy = CleaningPolicy(7, 7, ("crashed", "failed"), 30)
    assert [one.name for one in removable(place, policy, NOW)] == ["failed"]


def test_nothing_of_a_running_run_is_ever_listed(place: Home) -> None:
    used = make(place, "scores", "used")
    run(place, "running", "running", [used])
    with alive(place, "running"):
        assert removable(place, POLICY, NOW) == []


def test_no_artifact_is_removed_while_a_run_goes_on(place: Home) -> None:
    # It may be about to take it from the cache: it has not said so yet.
    make(place, "scores", "old")
    run(place, "lost", "crashed", [])
    listed = removable(place, POLICY, NOW)
    with in_use(place):
        gone = remove(place, listed)
        assert {one.what for one in gone} == {"run"}
        assert (place.artifacts / "scores" / "old").is_dir()
    assert {one.what for one in remove(place, removable(place, POLICY, NOW))} == {"artifact"}
    assert not (place.artifacts / "scores" / "old").exists()


def test_a_run_that_starts_during_a_removal_waits_until_it_has_ended(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place, "scores", "old")
    order: list[str] = []
    started, waiting = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        started.set()
        assert waiting.wait(10)
        order.append("removed")

    def begin() -> None:
        assert started.wait(10)
        waiting.set()
        with in_use(place):
            order.append("run")

    monkeypatch.setattr("storage.upkeep.cleaning._remove", slow)
    thread = threading.Thread(target=begin)
    thread.start()
    remove(place, removable(place, POLICY, NOW))
    thread.join(10)
    assert order == ["removed", "run"]


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(place: Home) -> None:
    place.artifacts.mkdir(parents=True)
    left, written = place.artifacts / ".scores-0123-abc", place.artifacts / ".scores-4567-def"
    for folder in (left, written):
        folder.mkdir()
        (folder / "part").write_text("x")
    age_of(left, OLD)
    age_of(written, NOW)
    run(place, "kept", "completed", [])
    table = place.tables / "runs" / ".kept.parquet-xyz"
    table.write_text("half")
    age_of(table, OLD)
    assert found(place, "temporary") == {
        "artifacts/.scores-0123-abc",
        "tables/runs/.kept.parquet-xyz",
    }
    remove(place, removable(place, POLICY, NOW))
    assert (left.exists(), written.exists(), table.exists()) == (False, True, False)


def test_old_logs_go_and_others_stay(place: Home) -> None:
    place.logs.mkdir(parents=True)
    for name, time in (("prefect.log", NOW), ("worker.log.1", OLD), ("notes.txt", OLD)):
        (place.logs / name).write_text("x")
        age_of(place.logs / name, time)
    assert found(place, "log") == {"logs/worker.log.1"}


def test_logs_that_a_running_stack_holds_open_stay(place: Home) -> None:
    place.logs.mkdir(parents=True)
    for name in ("worker.log", "worker.log.1"):
        (place.logs / name).write_text("x")
        age_of(place.logs / name, OLD)
    with only_stack(place):
        assert found(place, "log") == {"logs/worker.log.1"}
    assert found(place, "log") == {"logs/worker.log", "logs/worker.log.1"}


def test_bytes_are_those_of_all_files(place: Home) -> None:
    make(place, "scores", "old")
    (one,) = removable(place, POLICY, NOW)
    folder = place.artifacts / "scores" / "old"
    assert one.size_bytes == sum(path.stat().st_size for path in folder.iterdir()) > 1000


def test_listing_changes_nothing(place: Home) -> None:
    make(place, "scores", "old")
    run(place, "lost", "crashed", [])
    before = sorted(path for path in place.root.rglob("*"))
    removable(place, POLICY, NOW)
    assert sorted(path for path in place.root.rglob("*")) == before


def test_a_home_that_is_not_there_has_nothing_to_remove(place: Home) -> None:
    assert removable(place, POLICY, NOW) == []


def test_a_removed_artifact_is_never_found_half(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = make(place, "scores", "old")
    seen: list[Iterator[Removable] | ArtifactRef | None] = []
    monkeypatch.setattr(
        "shutil.rmtree",
        lambda _path, **_: seen.append(ArtifactStore(place).find("scores", "old")),
    )
    remove(place, removable(place, POLICY, NOW))
    assert seen == [None]
    assert ref.key == "old"


def test_a_line_cut_short_by_a_kill_hides_nothing_else(place: Home) -> None:
    ref = make(place, "scores", "used")
    run(place, "kept", "completed", [ref])
    with (run_folder(place, "kept") / "artifacts.jsonl").open("a") as file:
        file.write('{"kind": "scor')
    assert found(place, "artifact") == set()


@pytest.mark.parametrize("damage", [b"\xff\x00\n", b"{\n{\n", None])
def test_artifacts_stay_where_it_is_not_known_what_a_run_uses(
    place: Home, caplog: pytest.LogCaptureFixture, damage: bytes | None
) -> None:
    run(place, "r1", "completed", [make(place, "kind", "used")])
    make(place, "kind", "unused")
    used = run_folder(place, "r1") / USED
    used.unlink()
    used.mkdir() if damage is None else used.write_bytes(damage)
    assert removable(place, POLICY, NOW) == []
    assert f"{used}, the artifacts that the run r1 uses, is damaged" in caplog.text
    used.rmdir() if damage is None else used.unlink()
    assert len(removable(place, POLICY, NOW)) == 2
