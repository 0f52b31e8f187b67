"""Artifacts as folders of a home: written whole or not at all, verified, one writer at a time."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from storage.errors import DamagedArtifactError
from storage.locks import locked
from storage.paths import Home
from storage.references import ArtifactRef, checksum, digest_of, file_names
from storage.shared.remote import MANIFEST, Manifest, manifest_of, reference
from storage.whole_files import discard, make_readable

CACHE_RECORD = "cache-record.json"
NOT_HERE = "not-here"
"""Name of the file that stands for an artifact's files while only a store has them: its URL."""

log = logging.getLogger(__name__)

Write = Callable[[Path], dict[str, Any]]
_Stamp = tuple[tuple[str, int, int], ...]


class LocalArtifacts:
    """The artifacts in the folder of one home; safe under threads and processes of a machine."""

    def __init__(self, home: Home) -> None:
        """Use the artifacts of ``home``; nothing is created before something is written."""
        self._root = home.artifacts
        self._url = home.store
        self._verified: dict[ArtifactRef, _Stamp] = {}

    def folder(self, kind: str, key: str) -> Path:
        """Return where the artifact is, or will be."""
        return self._root / kind / key

    def _here(self, kind: str, key: str) -> Manifest | None:
        """Return the manifest of an artifact of which the files are here, or in the store."""
        folder = self.folder(kind, key)
        try:
            manifest = read_manifest(folder)
        except DamagedArtifactError:
            return None
        return manifest if self._elsewhere(folder) in (None, self._url) else None

    def _elsewhere(self, folder: Path) -> str | None:
        """Return the URL of the store that has the files, None where they are here."""
        try:
            return (folder / NOT_HERE).read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError:
            return "a folder that should be a file"

    def _write(self, kind: str, key: str, write: Write, inputs: Any) -> ArtifactRef:
        """Have an artifact written, and publish it here; its lock is held."""
        with self._new_folder(kind, key) as folder:
            facts = write(folder)
            manifest = manifest_of(kind, key, folder, facts, inputs)
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        return reference(manifest)

    def _refer(self, manifest: Manifest) -> ArtifactRef:
        """Keep the manifest of an artifact of which the store has the files; its lock is held."""
        with self._new_folder(manifest["kind"], manifest["key"]) as folder:
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
            (folder / NOT_HERE).write_text(str(self._url))
        return reference(manifest)

    @contextmanager
    def _new_folder(self, kind: str, key: str) -> Iterator[Path]:
        """Give an empty folder, which takes the artifact's place if all goes well."""
        with self._temporary(kind, key) as temporary:
            yield temporary
            final = self.folder(kind, key)
            final.parent.mkdir(parents=True, exist_ok=True)
            discard(final)
            make_readable(temporary)
            temporary.rename(final)

    @contextmanager
    def _temporary(self, kind: str, key: str) -> Iterator[Path]:
        self._root.mkdir(parents=True, exist_ok=True)
        prefix = f".{kind}-{key[:16]}-"
        # Left by a writer that was killed: its lock is ours now.
        for left in self._root.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=self._root))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _heal(self, kind: str, key: str) -> ArtifactRef | None:
        """Remove what is damaged, and return what is sound; its lock is held."""
        folder = self.folder(kind, key)
        if not os.path.lexists(folder):
            return None
        found = self._here(kind, key)
        ref = ArtifactRef(kind=kind, key=key, digest="") if found is None else reference(found)
        try:
            if found is None or self._elsewhere(folder) is None:
                self._check(folder, ref)
        except DamagedArtifactError as damage:
            log.warning("damaged artifact, making it again: %s", damage)
            discard(folder)
            return None
        return ref

    def _check(self, folder: Path, ref: ArtifactRef) -> None:
        """Verify an artifact unless it was, and nothing was touched since."""
        stamp = _stamp(folder)
        if self._verified.get(ref) != stamp:
            self._verify(folder, ref)
            self._verified[ref] = stamp

    def _verify(self, folder: Path, ref: ArtifactRef) -> None:
        manifest = self._here(ref.kind, ref.key)
        if manifest is None:
            url = self._elsewhere(folder)
            if url is None:
                read_manifest(folder)  # says what is wrong with it
            raise DamagedArtifactError(
                f"the files of {folder} are in the store {url}, which is not in use; set "
                "REAL_STORE to it, or run again to make them here"
            )
        expected: dict[str, str] = manifest["files"]
        for name, recorded in expected.items():
            path = folder / name
            if not path.is_file():
                raise DamagedArtifactError(f"{path} is missing")
            if checksum(path) != recorded:
                raise DamagedArtifactError(f"{path} does not have its recorded sha256 {recorded}")
        if digest_of(ref.kind, expected) != ref.digest:
            raise DamagedArtifactError(f"{folder} is not the artifact with digest {ref.digest}")

    def _lock(self, kind: str, key: str) -> AbstractContextManager[Any]:
        return locked(self._root / ".locks" / f"{kind}-{key}")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the artifact in a folder.

    Raises:
        DamagedArtifactError: it is missing, or cannot be read.
    """
    path = folder / MANIFEST
    try:
        manifest: Manifest = json.loads(path.read_bytes())
        reference(manifest)
        if not all(isinstance(manifest[part], dict) for part in ("files", "facts")):
            raise TypeError("its files and facts are no objects")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedArtifactError(
            f"{path} is damaged or missing ({error}); run again: the artifact is made anew"
        ) from error
    return manifest


def _stamp(folder: Path) -> _Stamp:
    """Sizes and times that tell whether files were touched since their checksums were verified."""
    files = [(name, (folder / name).stat()) for name in file_names(folder) if name != CACHE_RECORD]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
