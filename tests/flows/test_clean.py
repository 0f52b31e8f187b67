"""The flow that removes what nobody needs: what it says, and that it only lists by default."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.artifacts import Artifact
from typer.testing import CliRunner

from flows.clean import clean
from flows.cli import app
from real_tasks.tasks.upkeep.cleaning import CleanConfig, CleanSummary, readable_bytes
from storage.artifacts.store import ArtifactRef, ArtifactStore
from storage.paths import Home
from storage.runs.run import alive, run_folder, write_run
from storage.runs.used import in_use, note_used
from storage.tables.parquet import read_rows

pytestmark = pytest.mark.usefixtures("prefect_server")

OLD = datetime.now(UTC) - timedelta(days=40)


def make(home: Home, key: str) -> ArtifactRef:
    def write(folder: Path) -> dict[str, Any]:
        (folder / "data.bin").write_bytes(b"x" * 3000)
        return {}

    ref = ArtifactStore(home).make("scores", key, write)
    folder = home.artifacts / "scores" / key
    for path in [*folder.iterdir(), folder]:
        os.utime(path, (OLD.timestamp(), OLD.timestamp()))
    return ref


def run(home: Home, run_id: str, status: str, refs: list[ArtifactRef]) -> None:
    run_folder(home, run_id).mkdir(parents=True)
    note_used(home, run_id, refs)
    row = {"run_id": run_id, "flow": "experiment", "started_at": OLD, "finished_at": None}
    row |= {
        "status": status,
        "model": "m",
        "model_id": "0",
        "behaviour": "b",
        "seed": 0,
        "config_digest": "0",
    }
    write_run(home, row | {"git_commit": None, "mlflow_run_id": None})


@pytest.fixture
def used(home: Path) -> Iterator[Home]:
    """A home with a kept run, one that crashed long ago, one that runs, and what they used."""
    place = Home(home)
    run(place, "kept", "completed", [make(place, "kept")])
    run(place, "lost", "running", [make(place, "lost")])  # its process is gone: it crashed
    run(place, "going", "running", [make(place, "going")])
    make(place, "of-nobody")
    with alive(place, "going"):
        yield place


def everything(place: Home) -> set[str]:
    return {str(path.relative_to(place.root)) for path in place.root.rglob("*")}


def test_by_default_it_only_lists_and_says_how_much_it_would_be(used: Home) -> None:
    before = everything(used)
    summary = clean()
    assert everything(used) - before <= {".in-use"} and before <= everything(used)
    assert not summary.removed
    assert summary.counts == {"artifact": 2, "run": 1}
    assert summary.size_bytes > 6000
    page = Artifact.get("cleaning")
    assert page is not None and page.data is not None
    assert "scores/of-nobody" in page.data and "could be removed" in page.data
    assert "going" not in page.data and "kept" not in page.data.replace("no kept run", "")


def test_switched_off_it_removes_and_leaves_what_runs(used: Home) -> None:
    listed = clean()
    summary = clean(CleanConfig(dry_run=False))
    assert summary.removed
    assert (summary.counts, summary.size_bytes) == (listed.counts, listed.size_bytes)
    left = {path.name for path in (used.artifacts / "scores").iterdir()}
    assert left == {"kept", "going"}
    statuses = {row["run_id"]: row["status"] for row in read_rows(used, "runs")}
    assert statuses == {"kept": "completed", "going": "running"}
    assert clean().counts == {}


def test_while_a_run_goes_on_artifacts_are_left_and_that_is_said(used: Home) -> None:
    with in_use(used):  # as `running` has it
        summary = clean(CleanConfig(dry_run=False))
    assert summary.skipped == 2
    assert "2 left, since a run is going on" in summary.sentence()
    assert {path.name for path in (used.artifacts / "scores").iterdir()} >= {"of-nobody", "lost"}


def test_a_flow_run_is_named_by_what_it_does() -> None:
    assert CleanConfig().label == "dry-run"
    assert CleanConfig(dry_run=False).label == "removal"


def test_nothing_to_remove_is_said_too() -> None:
    nothing = CleanSummary(removed=False, counts={}, size_bytes=0, skipped=0)
    assert nothing.sentence() == "nothing is there to be removed"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert readable_bytes(size) == text


def test_the_command_lists_and_removes_as_the_flow_does(used: Home) -> None:
    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["clean", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    listed = said()
    assert "1 runs that did not end well" in listed and "could be removed" in listed
    assert {row["run_id"] for row in read_rows(used, "runs")} == {"kept", "lost", "going"}
    with in_use(used):
        assert "removed; 2 left, since a run is going on" in said("--remove")
    assert {row["run_id"] for row in read_rows(used, "runs")} == {"kept", "going"}
    assert CliRunner().invoke(app, ["clean", "--remove", "--run-days", "10" * 9]).exit_code == 2
