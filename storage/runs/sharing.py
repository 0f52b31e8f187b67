"""Rows and folders of runs, shared with the other machines that use a store.

What finished runs left here goes to the store; the rows of others come whenever tables are read,
and the folder of a run when somebody asks for it. Nothing is removed from the store, and what was
removed from a home does not come back.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from storage.errors import DamagedArtifactError, StorageError
from storage.locks import locked
from storage.paths import Home
from storage.shared.journal import Journal, replace
from storage.tables.parquet import MERGED, files_of, folder_lock, merged_parts, read_rows
from storage.tables.seals import damaged, is_sound

_LEDGER = "files.json"

log = logging.getLogger(__name__)


def push(home: Home) -> None:
    """Upload what finished runs left in the home and its store does not have; no store: nothing.

    Raises:
        StoreUnavailableError: the store cannot be reached; the next call uploads it.
    """
    if home.store is not None and home.root.is_dir():
        with _shared_runs(home) as shared:
            shared.push()


def pull(home: Home) -> None:
    """Take the rows that other machines' runs left; without a store: nothing.

    A run whose files are damaged in the store is left out, with a warning.

    Raises:
        StoreUnavailableError: the store cannot be reached.
    """
    if home.store is not None:
        with _shared_runs(home) as shared:
            shared.pull()


def fetch_run(home: Home, run_id: str) -> None:
    """Take the folder of another machine's run: report, figures, steering specs.

    Raises:
        StoreUnavailableError: the store cannot be reached.
        DamagedArtifactError: a file is missing in the store, or changed.
    """
    if home.store is not None:
        with _shared_runs(home) as shared:
            shared.fetch(f"runs/{run_id}/")


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
def _shared_runs(home: Home) -> Iterator["_SharedRuns"]:
    """Give the home's sharing, locked; its ledger is written at the end, however that comes."""
    path = home.shared / _LEDGER
    with locked(home.shared / ".lock"):
        before, ledger = _ledger(path)
        shared = _SharedRuns(home, ledger)
        try:
            yield shared
        finally:
            after = json.dumps(shared.ledger).encode()
            if after != before:
                replace(path, after)


def _ledger(path: Path) -> tuple[bytes, dict[str, dict[str, Any]]]:
    """Return the content of a ledger, and what it says; of a damaged one, nothing."""
    if not path.exists():
        return b"", {}
    content = path.read_bytes()
    try:
        ledger = json.loads(content)
        assert all({"size", "mtime_ns", "sha256", "entry"} <= {*note} for note in ledger.values())
    except (ValueError, AttributeError, TypeError, AssertionError, RecursionError):
        log.warning(
            "%s, which says what of this home its store has, is damaged: a new one is made; rows "
            "of other machines that were removed here come back",
            path,
        )
        return content, {}
    return content, ledger


class _SharedRuns:
    """Moves files between a home and the journal of its store.

    The ledger says for every file that came or went: size and time it has here, checksum, entry.
    """

    def __init__(self, home: Home, ledger: dict[str, dict[str, Any]]) -> None:
        self._home, self.ledger, self._journal = home, ledger, Journal(home)

    def push(self) -> None:
        runs = read_rows(self._home, "runs")
        running = tuple(row["run_id"] for row in runs if row["status"] == "running")
        finished = [row["run_id"] for row in runs if row["status"] != "running"]
        groups: dict[str, list[str]] = {}
        for path in self._own(running):
            if self._touched(path):
                groups.setdefault(_run_of(path, finished), []).append(path)
        for _, paths in sorted(groups.items()):
            self._push(paths)

    def pull(self) -> None:
        for name, content in self._journal.news():
            try:
                files = self._journal.entry(name, content).files
                self._take(name, {p: sha for p, sha in files.items() if _is_table(p)})
            except DamagedArtifactError as damage:
                log.warning("rows of another machine are left out: %s", damage)
            else:
                self._journal.keep(name, content)

    def fetch(self, prefix: str) -> None:
        for entry in self._journal.entries():
            files = {p: sha for p, sha in entry.files.items() if p.startswith(prefix)}
            self._take(entry.name, files)

    def _own(self, running: tuple[str, ...]) -> Iterator[str]:
        """Yield the paths of what may be shared: nothing merged, of others, or of running runs."""
        others = [entry for entry in self._journal.entries() if entry.home != self._journal.home]
        theirs = {path for entry in others for path in entry.files}
        their_runs = {PurePosixPath(p).parts[1] for p in theirs if not _is_table(p)}
        for folder in sorted(self._home.tables.glob("[!.]*/")):
            for file in files_of(folder):
                path = self._path(file)
                if not file.name.startswith((MERGED, *running)) and path not in theirs:
                    yield path
        for folder in sorted(self._home.runs.glob("[!.]*/")):
            if folder.name not in (*running, *their_runs):
                files = (file for file in sorted(folder.rglob("[!.]*")) if file.is_file())
                yield from map(self._path, files)

    def _touched(self, path: str) -> bool:
        """Tell whether a file is not as it last came or went; one that is gone is untouched."""
        known = self.ledger.get(path)
        try:
            now = _stat(self._home.root / path)
        except FileNotFoundError:
            return False
        return known is None or any(known[name] != value for name, value in now.items())

    def _push(self, paths: Iterable[str]) -> None:
        notes, contents = {}, {}
        for path in paths:
            try:
                note, content = _read(self._home.root / path)
            except FileNotFoundError:  # cleaned away meanwhile
                continue
            if _is_table(path) and not is_sound(self._home.root / path):
                log.warning("not shared: %s", damaged(self._home.root / path, "its seal is broken"))
                continue
            known = self.ledger.get(path, {})
            if known.get("sha256") == note["sha256"]:
                self.ledger[path] = known | note
            else:
                notes[path], contents[path] = note, content
        if contents:
            entry = self._journal.publish(contents)
            for path, note in notes.items():
                self.ledger[path] = note | {"entry": entry.name}

    def _take(self, entry: str, files: Mapping[str, str]) -> None:
        """Download files, all of them before one is put in its place."""
        wanted = {path: sha for path, sha in files.items() if self._wants(path, sha, entry)}
        contents = {path: self._journal.download(path, sha) for path, sha in wanted.items()}
        # A run's own row is last: who sees it finds the others.
        for path, content in sorted(contents.items(), key=lambda one: "/runs/" in one[0]):
            if self._place(path, content):
                note, _ = _read(self._home.root / path)
                self.ledger[path] = note | {"entry": entry}

    def _wants(self, path: str, sha256: str, entry: str) -> bool:
        """Leave alone what this home made, changed or removed, and what is newer."""
        known, file = self.ledger.get(path), self._home.root / path
        if known is None or not file.exists():
            return known is None and not file.exists()
        newer = known["entry"] < entry and known["sha256"] != sha256
        return newer and not self._touched(path)

    def _place(self, path: str, content: bytes) -> bool:
        file = self._home.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not _is_table(path):
            replace(file, content)
            return True
        # The folder of a table may be swapped for one in which its parts are merged.
        with folder_lock(self._home, file.parent.name, exclusive=False):
            merged = file.stem in merged_parts(file.parent)
            if not merged:
                replace(file, content)
        return not merged

    def _path(self, file: Path) -> str:
        return file.relative_to(self._home.root).as_posix()


def _run_of(path: str, run_ids: Iterable[str]) -> str:
    """Return the run to which a file belongs, '' for what several runs share."""
    name = PurePosixPath(path).parts[2 if _is_table(path) else 1]
    return next((run_id for run_id in run_ids if name.startswith(run_id)), "")


def _is_table(path: str) -> bool:
    return path.startswith("tables/")


def _stat(file: Path) -> dict[str, Any]:
    found = file.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _read(file: Path) -> tuple[dict[str, Any], bytes]:
    """Return what the ledger says of a file, and its content."""
    stat, content = _stat(file), file.read_bytes()
    return stat | {"sha256": hashlib.sha256(content).hexdigest()}, content
