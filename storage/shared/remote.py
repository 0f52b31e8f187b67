"""Artifacts in a store that machines share, and what a home knows of it.

``artifacts/<kind>/<key>/<digest>/`` holds the files and their manifest, so that a reference always
finds what it refers to; ``artifacts/<kind>/<key>/manifest.json`` says which digest the key stands
for. It is created last, and only where there is none: its appearance is the publication.
"""

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from storage.errors import DamagedArtifactError
from storage.paths import Home
from storage.references import ArtifactRef, checksum, digest_of, sha256_of
from storage.shared.backends import open_objects
from storage.shared.lease import LeaseTiming, turn
from storage.shared.objects import Objects

MANIFEST = "manifest.json"
_TRANSFERS = 8

Manifest = dict[str, Any]


class RemoteArtifacts:
    """The artifacts in the store of one home; nothing is asked of the store before it is needed."""

    def __init__(self, home: Home, timing: LeaseTiming) -> None:
        """Use the store of ``home``, which has one."""
        self._home, self._timing = home, timing
        self._notes = home.shared

    @cached_property
    def objects(self) -> Objects:
        """The store."""
        assert self._home.store is not None
        return open_objects(self._home.store)

    def find(self, kind: str, key: str) -> Manifest | None:
        """Return the manifest that a key stands for, None where nothing was published."""
        return self._manifest(_published(kind, key))

    def manifest(self, ref: ArtifactRef) -> Manifest | None:
        """Return the manifest of what a reference refers to, None if it is not in the store."""
        return self._manifest(f"{_content(ref)}/{MANIFEST}")

    def fetch(self, ref: ArtifactRef, manifest: Manifest, into: Path) -> None:
        """Download an artifact's files and verify their checksums.

        Raises:
            DamagedArtifactError: a file is missing or changed; this is noted, and whoever makes the
                artifact next mends the store.
        """
        files: Mapping[str, str] = manifest["files"]
        try:
            _check_names(ref, files)
            _each(lambda name: self._download(ref, name, files[name], into / name), files)
        except DamagedArtifactError:
            self._note("damaged", ref.kind, ref.key).write_text(ref.digest)
            raise

    def publish(self, ref: ArtifactRef, folder: Path, *, mending: bool = False) -> ArtifactRef:
        """Upload an artifact; return the one that its key stands for: this, or an earlier one.

        Args:
            ref: the artifact.
            folder: its files and its manifest.
            mending: take the place of what is there, which is damaged.
        """
        content = (folder / MANIFEST).read_bytes()
        there = None if mending else self.find(ref.kind, ref.key)
        if there is None or reference(there) != ref:
            self._upload(ref, folder, content)
        self.note_known(ref)
        if there is not None:
            return reference(there)
        if mending or not self.objects.create(_published(ref.kind, ref.key), content):
            winner = None if mending else self.find(ref.kind, ref.key)
            if winner is not None:
                return reference(winner)
            self.objects.write(_published(ref.kind, ref.key), content)  # over what is damaged
        self.forget_damage(ref.kind, ref.key)
        return ref

    def turn(
        self, kind: str, key: str, done: Callable[[], Manifest | None]
    ) -> AbstractContextManager[Manifest | None]:
        """Wait for what another machine makes, or for the turn to make it; see `lease.turn`."""
        return turn(
            self.objects, f"leases/{kind}-{key}", identity_of(self._home), self._timing, done
        )

    def knows(self, ref: ArtifactRef) -> bool:
        """Tell whether the artifact is known to be in the store."""
        try:
            return self._note("known", ref.kind, ref.key).read_text() == ref.digest
        except FileNotFoundError:
            return False

    def note_known(self, ref: ArtifactRef) -> None:
        """Write down that the artifact is in the store."""
        self._note("known", ref.kind, ref.key).write_text(ref.digest)

    def damaged(self, kind: str, key: str) -> bool:
        """Tell whether the store's artifact was found damaged, and was not mended since."""
        return self._note("damaged", kind, key).exists()

    def forget_damage(self, kind: str, key: str) -> None:
        """Write down that the store's artifact is sound."""
        self._note("damaged", kind, key).unlink(missing_ok=True)

    def _upload(self, ref: ArtifactRef, folder: Path, manifest: bytes) -> None:
        def upload(name: str) -> None:
            self.objects.upload(f"{_content(ref)}/{name}", folder / name)

        _each(upload, json.loads(manifest)["files"])
        self.objects.write(f"{_content(ref)}/{MANIFEST}", manifest)

    def _manifest(self, name: str) -> Manifest | None:
        content = self.objects.read(name)
        try:
            manifest: Manifest = json.loads(content or b"null")
            sound = digest_of(manifest["kind"], manifest["files"]) == manifest["digest"]
            return manifest if sound and isinstance(manifest["facts"], dict) else None
        except (ValueError, KeyError, TypeError):
            return None

    def _download(self, ref: ArtifactRef, name: str, expected: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        where = f"{self.objects.url}/{_content(ref)}/{name}"
        if not self.objects.download(f"{_content(ref)}/{name}", path):
            raise DamagedArtifactError(f"{where} is missing")
        if checksum(path) != expected:
            raise DamagedArtifactError(f"{where} does not have its recorded sha256 {expected}")

    def _note(self, what: str, kind: str, key: str) -> Path:
        path = self._notes / what / f"{kind}-{key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def identity_of(home: Home) -> str:
    """Return what tells a home from others that use its store: a copy of it elsewhere is another.

    It begins with the machine's name.
    """
    path = home.shared / "identity"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".identity-") as file:
            file.write(secrets.token_hex(16))
            file.flush()
            with suppress(FileExistsError):
                os.link(file.name, path)  # of several processes one succeeds, with the whole of it
    here = [path.read_text(errors="replace"), socket.gethostname(), str(home.root)]
    return f"{socket.gethostname()}:{sha256_of(here)[:16]}"


def reference(manifest: Manifest) -> ArtifactRef:
    """Return the reference to the artifact of a manifest."""
    return ArtifactRef(**{part: manifest[part] for part in ("kind", "key", "digest")})


def _published(kind: str, key: str) -> str:
    return f"artifacts/{kind}/{key}/{MANIFEST}"


def _content(ref: ArtifactRef) -> str:
    return f"artifacts/{ref.kind}/{ref.key}/{ref.digest}"


def _check_names(ref: ArtifactRef, names: Iterable[str]) -> None:
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DamagedArtifactError(f"the store's {_content(ref)} has a file {name!r}")


def _each(work: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        for done in [pool.submit(work, name) for name in names]:
            done.result()
