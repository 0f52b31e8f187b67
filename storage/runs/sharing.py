"""Runs, shared with the other machines that use a store: each is an artifact there.

It holds the run's parts of tables and its folder by their paths within a home, and is published
once the run has ended: others see all of it or nothing. Rows of others come whenever tables are
read, a run's folder when somebody asks for it. Nothing is removed from the store, and rows that
were removed from a home do not come back.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import DamagedArtifactError, StorageError
from storage.locks import locked
from storage.paths import Home
from storage.shared.remote import MEND, Manifest, RemoteArtifacts, manifest_of, reference
from storage.tables.parquet import MERGED, SUFFIX, files_of, folder_lock, merged_parts, read_run
from storage.tables.seals import DamagedTableError, damaged, is_sound
from storage.tables.written import USED
from storage.whole_files import discard

RUN = "run"
"""The kind of artifact that a run is."""
_PART = re.compile(rf"tables/\w+/(?!\.|{MERGED})[^/]+{re.escape(SUFFIX)}")

log = logging.getLogger(__name__)


def push(home: Home) -> None:
    """Upload the runs that have ended here and that its store does not have; no store: nothing.

    Raises:
        StoreUnavailableError: the store cannot be reached; the next call uploads them.
    """
    if home.store is None or not home.root.is_dir():
        return
    with _sharing(home) as (remote, new):
        for row in files_of(home.tables / "runs"):
            there = remote.known(RUN, row.stem) or row.name.startswith(MERGED)
            if not there and (home.runs / row.stem).is_dir():
                try:
                    _publish(home, row.stem, remote, new)
                except DamagedTableError as damage:
                    log.warning("the run %s is not shared: %s", row.stem, damage)
                except FileNotFoundError:  # cleaned away meanwhile
                    continue


def pull(home: Home) -> None:
    """Take the rows that other machines' runs left; without a store: nothing.

    A run whose files are damaged in the store is left out, with a warning.

    Raises:
        StoreUnavailableError: the store cannot be reached.
    """
    if home.store is None:
        return
    with _sharing(home) as (remote, new):
        for run_id in remote.objects.below(f"artifacts/{RUN}"):
            manifest = None if remote.known(RUN, run_id) else remote.find(RUN, run_id)
            if manifest is None:  # known, or not there as a whole yet
                continue
            try:
                _fetch(remote, manifest, "tables/", new)
            except DamagedArtifactError as damage:
                log.warning("rows of another machine are left out: %s", damage)
            else:
                _place_rows(home, new)
                remote.note_known(reference(manifest))


def fetch_run(home: Home, run_id: str) -> None:
    """Take the folder of another machine's run: report, figures, steering specs.

    Raises:
        StoreUnavailableError: the store cannot be reached.
        DamagedArtifactError: a file is missing in the store, or changed.
    """
    if home.store is None or (home.runs / run_id).exists():
        return
    with _sharing(home) as (remote, new):
        manifest = remote.find(RUN, run_id)
        if manifest is not None and not (home.runs / run_id).exists():
            _fetch(remote, manifest, f"runs/{run_id}/", new)
            (new / "runs" / run_id).mkdir(parents=True, exist_ok=True)
            home.runs.mkdir(exist_ok=True)
            (new / "runs" / run_id).rename(home.runs / run_id)


@contextmanager
def pushed_at_end(home: Home) -> Iterator[None]:
    """Push when the context ends; an error of what ran in it is not hidden by one of the store.

    Who is asked to end at once leaves it to the next run.
    """
    try:
        yield
    except Exception:
        try:
            push(home)
        except StorageError as error:
            log.warning("%s", error)
        raise
    push(home)


@contextmanager
def _sharing(home: Home) -> Iterator[tuple[RemoteArtifacts, Path]]:
    """Give the home's store, and the path of a folder to use, while no other process has them."""
    new = home.shared / "new"
    with locked(home.shared / ".lock"):
        discard(new)  # left by a process that was killed
        try:
            yield RemoteArtifacts(home), new
        finally:
            discard(new)


def _publish(home: Home, run_id: str, remote: RemoteArtifacts, new: Path) -> None:
    """Publish a run if it has ended, from a copy: its report may be written again meanwhile."""
    if any(row["status"] == "running" for row in read_run(home, "runs", run_id)):
        return
    discard(new)
    for file in _files(home, run_id):
        copy = new / file.relative_to(home.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        if file.is_relative_to(home.tables) and not is_sound(copy):
            raise damaged(file, "its seal is broken")
    remote.publish(manifest_of(RUN, run_id, new), new)


def _files(home: Home, run_id: str) -> Iterator[Path]:
    """Yield the files of a run: its parts of tables, those named by what it used, its folder."""
    folder = home.runs / run_id
    used = (folder / USED).read_text(errors="replace") if (folder / USED).exists() else ""
    for table in sorted(home.tables.glob("[!.]*/")):
        for part in files_of(table):
            if part.stem == run_id or f'"{part.stem}"' in used:
                yield part
    yield from (file for file in sorted(folder.rglob("[!.]*")) if file.is_file())


def _fetch(remote: RemoteArtifacts, manifest: Manifest, prefix: str, into: Path) -> None:
    """Download those files of a run whose paths begin with ``prefix``."""
    files, key = manifest["files"], manifest["key"]
    try:
        for name in files:
            if not (_PART.fullmatch(name) or name.startswith(f"runs/{key}/")):
                raise DamagedArtifactError(f"the run {key} of the store names a file {name!r}")
        discard(into)
        remote.fetch(manifest, [name for name in files if name.startswith(prefix)], into)
    except DamagedArtifactError as damage:
        raise DamagedArtifactError(f"{damage}; {MEND}") from damage


def _place_rows(home: Home, new: Path) -> None:
    # A run's own row is last: who sees it finds the others.
    for part in sorted(new.glob("tables/*/*"), key=lambda part: part.parent.name == "runs"):
        place = home.root / part.relative_to(new)
        place.parent.mkdir(parents=True, exist_ok=True)
        # The folder of a table may be swapped for one in which its parts are merged.
        with folder_lock(home, place.parent.name, exclusive=False):
            if place.stem not in merged_parts(place.parent) and not place.exists():
                part.rename(place)
