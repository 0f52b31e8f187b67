"""Runs: their names, their folders, and whether they still live."""

import logging
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.errors import StorageError
from storage.locks import is_locked, locked
from storage.paths import Home
from storage.place import opened
from storage.runs.sharing import fetch_run, pull
from storage.tables.parquet import read_rows, read_run, write_table

_ALIVE = ".alive"

log = logging.getLogger(__name__)


def new_run_id(now: datetime) -> str:
    """Return a name that sorts by time and is not taken: ``20261121-101502-3f9a``."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def run_folder(home: Home, run_id: str) -> Path:
    """Return the folder of a run's report, pictures and steering specs."""
    return home.runs / run_id


def write_run(home: Home, row: dict[str, Any]) -> None:
    """Write, or replace, the run's row of the view `runs`."""
    write_table(home, "runs", row["run_id"], [row])


@contextmanager
def alive(home: Home, run_id: str) -> Iterator[None]:
    """Hold the lock that tells other processes that the run's process lives.

    Its file is left where the run's end was not noted: `dead_runs` finds it.
    """
    path = run_folder(home, run_id) / _ALIVE
    with locked(path):
        try:
            yield
        finally:
            if all(row["status"] != "running" for row in read_run(home, "runs", run_id)):
                path.unlink(missing_ok=True)


def mark_crashed_runs(home: Home) -> list[str]:
    """Set the status of runs whose process died to `crashed`, in MLflow too; return their names."""
    return _mark(home, read_rows(home, "runs"))


def mark_dead_runs(home: Home) -> None:
    """Do as ``mark_crashed_runs``, looking only at runs that left a lock, as killed ones do.

    A home that cannot be written to stays as it is: ``dead_runs`` names them for who shows it.
    """
    try:
        for run_id in dead_runs(home):
            _mark(home, read_run(home, "runs", run_id))
            (run_folder(home, run_id) / _ALIVE).unlink(missing_ok=True)
    except (OSError, StorageError) as error:
        log.warning("dead runs could not be marked as crashed: %s", error)


def dead_runs(home: Home) -> list[str]:
    """Return the runs that left a lock which no process holds."""
    found = [path.parent.name for path in home.runs.glob(f"*/{_ALIVE}")]
    return sorted(run_id for run_id in found if not _lives(home, run_id))


def _mark(home: Home, rows: Iterable[dict[str, Any]]) -> list[str]:
    crashed = []
    for row in rows:
        if row["status"] == "running" and not _lives(home, row["run_id"]):
            write_run(home, row | {"status": "crashed"})
            crashed.append(row["run_id"])
    end_runs(home, crashed)
    return crashed


def end_runs(home: Home, run_ids: Sequence[str]) -> None:
    """End what these runs began in the home's own MLflow database and did not end, as killed."""
    database = home.mlflow / "mlflow.db"
    if not run_ids or not database.is_file():
        return
    end = int(now().timestamp() * 1000)
    with opened(database) as connection, connection:
        connection.executemany(
            "UPDATE runs SET status = 'KILLED', end_time = ? WHERE status = 'RUNNING' AND run_uuid "
            "IN (SELECT run_uuid FROM tags WHERE key = 'run_id' AND value = ?)",
            [(end, run_id) for run_id in run_ids],
        )


def find_run(home: Home, run_id: str | None, flow: str | None = None) -> dict[str, Any]:
    """Return the row of a run; without a name, of the last one (of ``flow``) that completed.

    Where the home has a store, the runs of other machines count; the folder of one is fetched.

    Raises:
        StorageError: there is none.
    """
    mark_dead_runs(home)
    runs = _runs(home)
    if not any(row["run_id"] == run_id for row in runs):
        pull(home)
        runs = _runs(home)
    found = _chosen(home, runs, run_id, flow)
    fetch_run(home, found["run_id"])
    return found


def git_commit() -> str | None:
    """Return the commit of the checkout that this code runs from, None outside of one."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _runs(home: Home) -> list[dict[str, Any]]:
    return sorted(read_rows(home, "runs"), key=lambda row: row["started_at"])


def _chosen(
    home: Home, runs: list[dict[str, Any]], run_id: str | None, flow: str | None
) -> dict[str, Any]:
    if run_id is None:
        runs = [r for r in runs if r["status"] == "completed" and flow in (None, r["flow"])]
        if not runs:
            raise StorageError(f"no completed {flow or 'run'} in {home.root}; `real run` makes one")
        return runs[-1]
    for row in runs:
        if row["run_id"] == run_id:
            return row
    known = ", ".join(row["run_id"] for row in runs[-5:]) or "none"
    raise StorageError(f"no run {run_id!r} in {home.root}; the last ones: {known}")


def _lives(home: Home, run_id: str) -> bool:
    try:
        return is_locked(run_folder(home, run_id) / _ALIVE)
    except OSError:
        return False
