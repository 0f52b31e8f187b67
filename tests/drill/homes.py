"""A home under trial: commands on it, what its runs say, what a killed process left in it."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.artifacts.store import NOT_HERE
from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.tables.schemas import TABLES
from tests.terminal import REAL, RUN, environment

LIMIT_S = 1200
"""Seconds after which a command counts as hanging."""
LEAVE_S = 45
"""Seconds in which the processes below a killed one must be gone."""

Contents = dict[str, list[dict[str, Any]]]
"""Rows of one run by table, without names, times and timings."""


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody disturbed: what its tables hold, and how long it took."""

    contents: Contents
    seconds: float


class LostError(Exception):
    """The system did not keep what it promises; the message says what was seen."""


def require(holds: bool, what: str) -> None:
    """Say what was lost unless ``holds``."""
    if not holds:
        raise LostError(what)


def variables(home: Home) -> dict[str, str]:
    """Return a terminal's environment for a home and its store."""
    store = {"REAL_STORE": home.store} if home.store else {}
    return environment(home.root, **store)


def start(home: Home, *arguments: str, under: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
    """Start a command on a home, ``under`` another; its output goes to a file."""
    home.root.parent.mkdir(parents=True, exist_ok=True)
    with said_in(home, arguments[0]).open("wb") as output:
        return subprocess.Popen(
            [*under, *REAL, *arguments],
            env=variables(home),
            cwd=home.root.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def said_in(home: Home, command: str) -> Path:
    """Return the file that has what a command said: beside the home's folder, which may be full."""
    return home.root.parent.with_name(f"{home.root.parent.name}-{command}.txt")


def await_words(home: Home, process: "subprocess.Popen[bytes]", command: str, words: str) -> None:
    """Wait until a running command has said certain words."""
    deadline = time.monotonic() + LIMIT_S
    while words not in (said := said_in(home, command).read_text(errors="replace")):
        require(process.poll() is None, f"`real {command}` ended: {tail(said)}")
        require(time.monotonic() < deadline, f"no {words!r} in {LIMIT_S} s: {tail(said)}")
        time.sleep(0.2)


def ended(home: Home, process: "subprocess.Popen[bytes]", command: str) -> tuple[int, str]:
    """Wait for a command's end; return its status and what it said."""
    try:
        status = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise LostError(f"`real {command}` did not end in {LIMIT_S} s") from None
    return status, said_in(home, command).read_text(errors="replace")


def ended_in_words(home: Home, process: "subprocess.Popen[bytes]", within_s: float) -> str:
    """Require that a run completes or ends with one error, in time; return what it said."""
    begun = time.monotonic()
    status, said = ended(home, process, "run")
    took = time.monotonic() - begun
    require(status >= 0, f"the run was ended by the signal {-status}: {tail(said)}")
    require("Traceback" not in said, f"a traceback: {tail(said)}")
    wanted = 1 if status else 0
    require(said.count("─ error ") == wanted, f"it ended with {status}: {tail(said)}")
    require(took < within_s, f"it ended with {status} only after {took:.0f} s: {tail(said)}")
    return said


def real(home: Home, *arguments: str) -> tuple[int, str]:
    """Run a command to its end; return its status and what it said."""
    return ended(home, start(home, *arguments), arguments[0])


def completed_run(home: Home) -> str:
    """Have a run complete on the home, and return its name."""
    status, said = real(home, *RUN)
    require(status == 0, f"a further run ended with {status}: {tail(said)}")
    return str(runs(home)[-1]["run_id"])


def check_goes_on(home: Home, undisturbed: Undisturbed) -> str:
    """Require that nothing of what was disturbed is left or half there, and that a run completes.

    Its numbers must be those of the undisturbed run; its name is returned.
    """
    check_left(home)
    check_all(home, undisturbed)
    run = completed_run(home)
    require(contents(home, run) == undisturbed.contents, "the numbers of a further run are others")
    check_all(home, undisturbed)
    check_left(home)
    return run


def runs(home: Home) -> list[dict[str, Any]]:
    """Return name and status of the runs that SQL shows, the oldest first."""
    query = "SELECT run_id, status FROM runs ORDER BY started_at"
    found: list[dict[str, Any]] = Catalog(home).query(query).to_pylist()
    return found


def contents(home: Home, run_id: str) -> Contents:
    """Return what tables hold of a run, in a fixed order."""
    catalog, found = Catalog(home), Contents()
    for name, table in TABLES.items():
        if name in ("runs", "stage_timings"):
            continue
        query = f"FROM {name} ORDER BY ALL"
        if "run_id" in table.schema.names:
            columns = f"SELECT * EXCLUDE (run_id) FROM {name}"
            query = f"{columns} WHERE run_id = '{run_id}' ORDER BY ALL"
        found[name] = catalog.query(query).to_pylist()
    return found


def check_all(home: Home, undisturbed: Undisturbed) -> None:
    """Require that nothing of the home is half there; processes on it have ended."""
    check_sql(home)
    for run in runs(home):
        found = contents(home, run["run_id"])
        for table, rows in found.items():
            whole = str(rows) == str(undisturbed.contents[table])
            optional = run["status"] != "completed" and not rows
            require(whole or optional, f"{table} of {run} has {len(rows)} other rows")
        for path in (home.runs / run["run_id"]).rglob("*.json"):
            if run["status"] == "completed":
                json.loads(path.read_text())
    check_artifacts(home)


def check_sql(home: Home) -> None:
    """Require that `real sql` answers with what is in the home, and no warning."""
    status, said = real(
        home, "sql", "SELECT run_id FROM runs ORDER BY started_at", "--format", "json"
    )
    require(status == 0, f"`real sql` ended with {status}: {tail(said)}")
    require([row["run_id"] for row in runs(home)] == _names(said), f"`real sql`: {tail(said)}")


def _names(said: str) -> list[str]:
    try:
        return [str(row["run_id"]) for row in json.loads(said or "[]")]
    except ValueError:
        raise LostError(f"`real sql` answers with more than rows: {tail(said)}") from None


def check_artifacts(home: Home) -> None:
    """Require of every published artifact that its files are those of its manifest."""
    for folder in home.artifacts.glob("[!.]*/*"):
        manifest = folder / "manifest.json"
        require(manifest.is_file(), f"{folder} has no manifest")
        if (folder / NOT_HERE).exists() or not folder.is_dir():
            continue
        for name, recorded in json.loads(manifest.read_text())["files"].items():
            there = (folder / name).is_file()
            require(there, f"{folder / name} is missing")
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            require(found == recorded, f"{folder / name} is half written")


def check_left(home: Home) -> None:
    """Require that no process of the home lives, and that nobody holds a lock in it."""
    deadline = time.monotonic() + LEAVE_S
    while left := processes_below(home.root):
        if time.monotonic() > deadline:
            kill_all(home.root)
            raise LostError(f"{len(left)} processes were left after {LEAVE_S} s: {left}")
        time.sleep(0.2)
    locks = [home.root / ".in-use", *home.root.glob("**/.*lock"), *home.root.glob("**/.alive")]
    for path in [*locks, *(home.artifacts / ".locks").glob("*")]:
        if path.is_file():
            require(_is_free(path), f"{path} is locked")


def processes_below(folder: Path) -> dict[int, str]:
    """Return the processes started for a home at or below a folder, and their command lines."""
    wanted, found = f"REAL_HOME={folder}".encode(), {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            if any(variable.startswith(wanted) for variable in variables):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(process.name)] = line.decode(errors="replace")[:100]
        except OSError:  # it ended
            continue
    return found


def kill_all(folder: Path) -> None:
    """Kill the processes started for a home at or below a folder."""
    for pid in processes_below(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def tail(said: str) -> str:
    """Return the end of what a command said, on one line."""
    return " ".join(said.split())[-400:]


def _is_free(path: Path) -> bool:
    with path.open("r+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
