import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.paths import Home
from storage.runs.run import (
    alive,
    dead_runs,
    find_run,
    git_commit,
    mark_crashed_runs,
    mark_dead_runs,
    new_run_id,
    run_folder,
    write_run,
)
from storage.sql.catalog import Catalog
from storage.tables.parquet import read_rows
from storage.tracking.tracker import Tracker
from tests.unit.storage_rows import START, run_row


def statuses(home: Home) -> dict[str, str]:
    return {found["run_id"]: found["status"] for found in read_rows(home, "runs")}


@pytest.fixture
def place(tmp_path: Path) -> Home:
    return Home(tmp_path)


RUNNER = """
import sys
from pathlib import Path
from storage.paths import Home
from storage.runs.run import alive

with alive(Home(Path(sys.argv[1])), sys.argv[2]):
    print("alive", flush=True)
    sys.stdin.read()
"""


def runner(home: Home, run_id: str) -> subprocess.Popen[str]:
    """A process that holds the run until its input closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(home.root), run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "alive\n"
    return process


def test_a_run_is_crashed_once_its_process_is_dead_and_not_before(place: Home) -> None:
    write_run(place, run_row("other"))
    process = runner(place, "other")
    try:
        assert mark_crashed_runs(place) == []
        assert statuses(place) == {"other": "running"}
    finally:
        process.kill()
        process.communicate()
    assert mark_crashed_runs(place) == ["other"]
    assert statuses(place) == {"other": "crashed"}
    assert mark_crashed_runs(place) == []


def test_a_run_of_another_thread_of_this_process_is_alive(place: Home) -> None:
    write_run(place, run_row("mine"))
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with alive(place, "mine"):
            held.set()
            release.wait(timeout=20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(timeout=20)
    assert mark_crashed_runs(place) == []
    release.set()
    thread.join()
    assert mark_crashed_runs(place) == ["mine"]


def test_runs_that_ended_are_left_as_they_are(place: Home) -> None:
    for status in ("completed", "failed", "crashed"):
        write_run(place, run_row(status, status))
    assert mark_crashed_runs(place) == []
    assert statuses(place) == {s: s for s in ("completed", "failed", "crashed")}


def test_marking_a_crash_changes_nothing_else_of_the_row(place: Home) -> None:
    write_run(place, run_row("gone"))
    mark_crashed_runs(place)
    assert read_rows(place, "runs") == [run_row("gone") | {"status": "crashed"}]


def test_being_alive_ends_even_when_the_run_fails(place: Home) -> None:
    with pytest.raises(RuntimeError), alive(place, "bad"):
        write_run(place, run_row("bad", "failed"))
        raise RuntimeError
    assert list(run_folder(place, "bad").iterdir()) == []
    assert mark_crashed_runs(place) == []


def test_a_run_that_could_not_note_its_end_is_known_to_be_dead(place: Home) -> None:
    write_run(place, run_row("full"))
    with pytest.raises(OSError, match="no space"), alive(place, "full"):
        raise OSError("no space")
    assert dead_runs(place) == ["full"]
    assert Catalog(place).query("SELECT status FROM runs").to_pylist() == [{"status": "crashed"}]
    mark_dead_runs(place)
    assert statuses(place) == {"full": "crashed"} and dead_runs(place) == []


def test_a_run_written_again_replaces_its_row(place: Home) -> None:
    write_run(place, run_row("r"))
    write_run(place, run_row("r", "completed"))
    assert statuses(place) == {"r": "completed"}


def test_without_a_name_the_last_completed_run_is_found(place: Home) -> None:
    for run_id, status, minutes in (
        ("z-old", "completed", 0),
        ("a-new", "completed", 5),
        ("m-newer", "failed", 9),
    ):
        write_run(place, run_row(run_id, status, minutes))
    assert find_run(place, None)["run_id"] == "a-new"
    assert find_run(place, "m-newer")["status"] == "failed"


def test_without_a_completed_run_the_error_says_how_to_make_one(place: Home) -> None:
    write_run(place, run_row("r", "failed"))
    with pytest.raises(StorageError, match="no completed run in .*`real run` makes one") as caught:
        find_run(place, None)
    assert str(place.root) in str(caught.value)


def test_an_unknown_run_is_an_error_that_lists_the_last_ones(place: Home) -> None:
    with pytest.raises(StorageError, match="no run 'x' in .*the last ones: none"):
        find_run(place, "x")
    for number in range(7):
        write_run(place, run_row(f"run-{number}", "completed", number))
    with pytest.raises(StorageError, match="run-2, run-3, run-4, run-5, run-6$"):
        find_run(place, "x")


def test_run_names_sort_by_time_and_differ_within_a_second() -> None:
    names = [new_run_id(START + timedelta(seconds=s)) for s in (0, 1, 61, 86400)]
    assert names == sorted(names)
    assert names[0].startswith("20260102-030405-")
    assert len({new_run_id(START) for _ in range(20)}) > 15


def test_the_commit_is_that_of_the_checkout_or_none() -> None:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert git_commit() == (found.stdout.strip() if found.returncode == 0 else None)


@pytest.mark.parametrize("read", ["sql", "report", "run"])
def test_whoever_reads_sees_a_dead_run_as_crashed_and_ends_it_in_mlflow(
    place: Home, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REAL_MLFLOW_URI", raising=False)
    tracker = Tracker(place)
    begun = tracker.start_run("demo", "killed", {}, {"run_id": "dead"})
    other = tracker.start_run("demo", "lives", {}, {"run_id": "alive"})
    for run_id in ("dead", "alive"):
        write_run(place, run_row(run_id, "running"))
    run_folder(place, "dead").mkdir(parents=True)
    (run_folder(place, "dead") / ".alive").touch()
    with alive(place, "alive"):
        if read == "sql":
            sql = "SELECT run_id, status FROM runs ORDER BY run_id"
            found = [tuple(one.values()) for one in Catalog(place).query(sql).to_pylist()]
            assert found == [("alive", "running"), ("dead", "crashed")]
        elif read == "report":
            assert find_run(place, "dead")["status"] == "crashed"
        else:
            assert mark_crashed_runs(place) == ["dead"]
        states = "SELECT mlflow_run_id, status FROM mlflow_runs"
        found = {
            one["mlflow_run_id"]: one["status"] for one in Catalog(place).query(states).to_pylist()
        }
        assert found == {begun: "crashed", other: "running"}


def test_a_home_that_cannot_be_written_to_shows_dead_runs_as_crashed_too(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(place, run_row("dead", "running"))
    run_folder(place, "dead").mkdir(parents=True)
    (run_folder(place, "dead") / ".alive").touch()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr("storage.runs.run.write_run", refuse)
    found = Catalog(place).query("SELECT status FROM runs").to_pylist()
    assert found == [{"status": "crashed"}]
