"""The artifact store: content-addressed folders, published whole or not at all.

`artifacts/<kind>/<key>/` holds a stage's files, their checksums in `manifest.json`, and the cache
record of the orchestrator: who deletes the folder deletes all three. The key says what went in,
the digest what came out. Where the home has a store behind it, what is made here goes there too,
and what is there is not made again: its files come when they are opened.
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from storage.artifacts.local import CACHE_RECORD, NOT_HERE, LocalArtifacts, Write, read_manifest
from storage.errors import DamagedArtifactError, StorageError
from storage.paths import Home
from storage.place import settle
from storage.references import ArtifactRef, fingerprint, sha256_of
from storage.room import check_room, room_error
from storage.shared.remote import MANIFEST, Manifest, RemoteArtifacts, reference
from storage.whole_files import discard

__all__ = [
    "CACHE_RECORD",
    "MANIFEST",
    "NOT_HERE",
    "ArtifactRef",
    "ArtifactStore",
    "fingerprint",
    "prepare_home",
    "sha256_of",
]

log = logging.getLogger(__name__)


class ArtifactStore(LocalArtifacts):
    """Reads and writes the artifacts of one home; safe under threads and processes of a machine.

    With a store behind the home, also under machines. What needs the store and does not reach it
    raises `StoreUnavailableError`; what is done is kept here, and shared when it is next asked for.
    """

    def __init__(self, home: Home) -> None:
        """Use the artifacts of ``home``; nothing is created before something is written."""
        super().__init__(home)
        self._remote = RemoteArtifacts(home) if home.store else None

    def make(self, kind: str, key: str, write: Write, inputs: Any = None) -> ArtifactRef:
        """Return the artifact, having ``write`` fill its folder where it is not there yet.

        Of several callers at once on one machine one writes, the others wait and find it; of
        several machines the first to publish wins, and the others take what it made. ``write`` gets
        an empty temporary folder, which becomes the artifact by one rename, and returns facts to
        keep.
        """
        with self._lock(kind, key):
            here = self._here(kind, key)
            if here is not None:
                self._share(reference(here))
                return reference(here)
            if self._remote is None:
                return self._write(kind, key, write, inputs)
            return self._make_for_all(self._remote, kind, key, write, inputs)

    def find(self, kind: str, key: str) -> ArtifactRef | None:
        """Return the reference of a published artifact, or None; checksums are not looked at."""
        found = self._here(kind, key)
        if found is None and self._remote is not None:
            found = self._remote.find(kind, key)
        return None if found is None else reference(found)

    def open(self, ref: ArtifactRef) -> Path:
        """Return the artifact's folder once its files are here and match the reference.

        Raises:
            DamagedArtifactError: a file is missing, changed, or not the one referred to.
        """
        folder = self.folder(ref.kind, ref.key)
        self._bring(ref, files=True)
        self._check(folder, ref)
        return folder

    def facts(self, ref: ArtifactRef) -> dict[str, Any]:
        """Return what the stage noted about its work (sizes, seconds, losses)."""
        facts: dict[str, Any] = self.manifest(ref)["facts"]
        return facts

    def manifest(self, ref: ArtifactRef) -> Manifest:
        """Return the manifest: files with checksums, facts, inputs.

        Raises:
            DamagedArtifactError: it cannot be read.
        """
        self._bring(ref, files=False)
        return read_manifest(self.folder(ref.kind, ref.key))

    def heal(self, kind: str, key: str) -> ArtifactRef | None:
        """Remove a damaged artifact, with a warning, so that it is made again; share a sound one.

        Returns:
            The reference of a sound one; None where there is none.
        """
        if not os.path.lexists(self.folder(kind, key)):
            return None
        # A check outside of the lock could remove what another process has made again meanwhile.
        with self._lock(kind, key):
            sound = self._heal(kind, key)
            if sound is not None:
                self._share(sound)
            return sound

    def _make_for_all(
        self, remote: RemoteArtifacts, kind: str, key: str, write: Write, inputs: Any
    ) -> ArtifactRef:
        mending = self._must_be_mended(remote, kind, key)
        there = None if mending else remote.find(kind, key)
        if there is not None:
            return self._refer(there)
        made = self._write(kind, key, write, inputs)
        folder = self.folder(kind, key)
        won = remote.publish(read_manifest(folder), folder, mending=mending)
        if won == made:
            return made
        log.warning(
            "another machine made %s/%s meanwhile, and it is not the same to the bit: theirs is "
            "used",
            *(kind, key),
        )
        theirs = remote.manifest(won)
        assert theirs is not None, "the content is there before the key stands for it"
        return self._refer(theirs)

    def _must_be_mended(self, remote: RemoteArtifacts, kind: str, key: str) -> bool:
        """Tell whether what the store has was found damaged, and still is."""
        manifest = remote.find(kind, key) if remote.damaged(kind, key) else None
        if manifest is None:
            return False
        try:
            with self._temporary(kind, key) as folder:
                remote.fetch(manifest, manifest["files"], folder)
        except DamagedArtifactError as damage:
            log.warning("damaged artifact in the store, making it again: %s", damage)
            return True
        remote.forget_damage(kind, key)
        return False

    def _share(self, ref: ArtifactRef) -> None:
        """Have the store have an artifact of this home; its lock is held."""
        folder, remote = self.folder(ref.kind, ref.key), self._remote
        if remote is None or self._elsewhere(folder) is not None:
            return
        if remote.known(ref.kind, ref.key) == ref.digest:
            return
        if remote.publish(read_manifest(folder), folder) != ref:
            log.warning(
                "%s is not the same to the bit as the store's, which others use; remove it to use "
                "that here too",
                folder,
            )

    def _bring(self, ref: ArtifactRef, *, files: bool) -> None:
        """Have the manifest here, and the files, if the store has them."""
        folder, remote = self.folder(ref.kind, ref.key), self._remote
        if remote is None or (
            (folder / MANIFEST).exists() and not (files and (folder / NOT_HERE).exists())
        ):
            return
        with self._lock(ref.kind, ref.key):
            manifest = self._here(ref.kind, ref.key)
            if manifest is None:
                manifest = remote.manifest(ref)
                if manifest is None:  # the caller says what is missing
                    return
                self._refer(manifest)
            if files and self._elsewhere(folder) is not None and reference(manifest) == ref:
                self._fetch(remote, ref, manifest)

    def _fetch(self, remote: RemoteArtifacts, ref: ArtifactRef, manifest: Manifest) -> None:
        """Put the store's files into the artifact's folder; its lock is held."""
        folder = self.folder(ref.kind, ref.key)
        with self._temporary(ref.kind, ref.key) as temporary:
            try:
                remote.fetch(manifest, manifest["files"], temporary)
            except DamagedArtifactError as damage:
                discard(folder)  # with the cache record, so that it is made again
                raise DamagedArtifactError(
                    f"{damage}; run again: it is made again, and the store mended"
                ) from damage
            for left in folder.iterdir():  # by a process that was killed here
                if left.name not in (MANIFEST, NOT_HERE, CACHE_RECORD):
                    discard(left)
            for path in temporary.iterdir():
                path.rename(folder / path.name)
            discard(folder / NOT_HERE)


def prepare_home(home: Home) -> None:
    """Create the home, and make sure that it, and the store behind it, can be written to.

    A home that was copied or moved is told of its new place.

    Raises:
        StorageError: the home or the store cannot be written to, the home's disk is full, or a
            database is damaged.
    """
    try:
        home.artifacts.mkdir(parents=True, exist_ok=True)
        check_room(home)
        with tempfile.TemporaryFile(dir=home.root):
            pass
        settle(home)
    except OSError as error:
        if full := room_error(home, error):
            raise full from error
        raise StorageError(
            f"the home {home.root} is not writable ({error.strerror}); "
            "choose another with --home or REAL_HOME"
        ) from error
    if home.store is not None:
        RemoteArtifacts(home).check()
