"""What of a home nobody needs any more, and its removal: artifacts, left-overs, crashed runs, logs.

A store behind the home, which other machines use too, is never touched.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from storage.errors import StorageError
from storage.paths import Home
from storage.runs.run import run_folder
from storage.runs.used import unused, used_artifacts
from storage.stack_state import is_held
from storage.tables.parquet import SUFFIX, read_rows

What = Literal["artifact", "temporary", "run", "log"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CleaningPolicy:
    """Days after which something may go.

    They count since an artifact that no run refers to was made; since a run started that ended in
    one of ``statuses``; since a log, and since a temporary folder or file, was last written.
    """

    artifact_days: int
    run_days: int
    statuses: tuple[str, ...]
    log_days: int
    temporary_days: int = 1


@dataclass(frozen=True)
class Removable:
    """Something that may go: what it is, where, how large, and why."""

    what: What
    name: str
    paths: tuple[Path, ...]
    size_bytes: int
    why: str


def removable(home: Home, policy: CleaningPolicy, now: datetime) -> list[Removable]:
    """Return what may go, the largest first of each kind; nothing is changed.

    A run that is going on, its folder and its rows are never among it.
    """
    gone, kept = list[dict[str, Any]](), list[dict[str, Any]]()
    for row in read_rows(home, "runs"):
        old = _older(row["started_at"], policy.run_days, now)
        (gone if old and row["status"] in policy.statuses else kept).append(row)
    return [
        *_crashed(home, gone),
        *_artifacts(home, [row["run_id"] for row in kept], policy, now),
        *_temporary(home, policy, now),
        *_logs(home, policy, now),
    ]


def remove(home: Home, found: Sequence[Removable]) -> list[Removable]:
    """Remove what `removable` found, and return what is gone.

    Artifacts and temporary folders stay while a run uses the home.
    """
    done = []
    with unused(home) as free:
        for one in found:
            if free or one.what in ("run", "log"):
                for path in one.paths:
                    _remove(path)
                done.append(one)
    return done


def _crashed(home: Home, rows: Iterable[dict[str, Any]]) -> Iterator[Removable]:
    for row in rows:
        name = row["run_id"]
        parts = [path for path in home.tables.glob(f"*/{name}{SUFFIX}") if path.is_file()]
        # The row of the run goes last: without it, nobody would find the rest again.
        parts.sort(key=lambda path: path.parent.name == "runs")
        folder = run_folder(home, name)
        paths = [*([folder] if folder.is_dir() else []), *parts]
        if paths:  # rows that were merged with others' stay, and nothing else is left of it then
            why = f"{row['status']}, started {row['started_at']:%Y-%m-%d}"
            yield _removable("run", name, paths, why)


def _artifacts(
    home: Home, kept: Sequence[str], policy: CleaningPolicy, now: datetime
) -> list[Removable]:
    try:
        used = used_artifacts(home, kept)
    except StorageError as error:
        log.warning("no artifact can be removed: %s", error)
        return []
    found = []
    for folder in home.artifacts.glob("[!.]*/*"):
        name = (folder.parent.name, folder.name)
        if folder.is_dir() and name not in used and _idle(folder, policy.artifact_days, now):
            found.append(_removable("artifact", "/".join(name), [folder], "no kept run uses it"))
    return sorted(found, key=lambda one: -one.size_bytes)


def _temporary(home: Home, policy: CleaningPolicy, now: datetime) -> Iterator[Removable]:
    """Folders of artifacts and files of tables whose writer was killed before it renamed them."""
    folders = [path for path in home.artifacts.glob(".*-*") if path.is_dir()]
    for path in [*folders, *home.tables.glob(f"*/.*{SUFFIX}-*")]:
        if _idle(path, policy.temporary_days, now):
            name = str(path.relative_to(home.root))
            yield _removable("temporary", name, [path], "its writer did not finish it")


def _logs(home: Home, policy: CleaningPolicy, now: datetime) -> Iterator[Removable]:
    # A stack that runs may hold its logs open without writing to them for long.
    pattern = "*.log.*" if is_held(home) else "*.log*"
    for path in sorted(home.logs.rglob(pattern)):
        if path.is_file() and _idle(path, policy.log_days, now):
            name = str(path.relative_to(home.root))
            yield _removable("log", name, [path], f"not written for {policy.log_days} days")


def _removable(what: What, name: str, paths: Sequence[Path], why: str) -> Removable:
    return Removable(what, name, tuple(paths), sum(map(_size, paths)), why)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(_stat(file).st_size for file in files if file.exists())


def _stat(path: Path) -> os.stat_result:
    return path.stat(follow_symlinks=False)


def _idle(path: Path, days: int, now: datetime) -> bool:
    """Tell whether nothing in it was written for so many days."""
    try:
        times = [_stat(p).st_mtime for p in (path, *path.rglob("*"))]
    except FileNotFoundError:  # it was finished, or removed, this moment
        return False
    return _older(datetime.fromtimestamp(max(times), now.tzinfo), days, now)


def _older(time: datetime, days: int, now: datetime) -> bool:
    return now - time > timedelta(days=days)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if not path.name.startswith("."):
        # Renamed first: who is killed here leaves a temporary folder, and no half of an artifact.
        path = path.rename(path.with_name(f".removed-{path.name}"))
    shutil.rmtree(path, ignore_errors=True)
