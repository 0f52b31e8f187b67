"""Artifacts in a store that machines share, and what a home knows of it.

``artifacts/<kind>/<key>/<digest>/`` holds the files and their manifest, so that a reference always
finds what it refers to; ``artifacts/<kind>/<key>/manifest.json`` says which digest the key stands
for. It is created last, and only where there is none: its appearance is the publication.
"""

import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from storage.errors import DamagedArtifactError
from storage.paths import Home
from storage.references import ArtifactRef, checksum, checksums, digest_of
from storage.shared.objects import Objects
from storage.whole_files import discard

MANIFEST = "manifest.json"
MEND = (
    "an artifact is made and published again when it is next wanted; to mend a run, remove its "
    "manifest.json (beside the folder of its files) from the store, and known/run-<run> from the "
    "folder `shared` of the home that made it, and run anything there"
)
_TRANSFERS = 4

Manifest = dict[str, Any]

log = logging.getLogger(__name__)


class RemoteArtifacts:
    """The artifacts in the store of one home; nothing is asked of the store before it is needed."""

    def __init__(self, home: Home) -> None:
        """Use the store of ``home``, which has one."""
        self._home = home

    @cached_property
    def objects(self) -> Objects:
        """The store."""
        assert self._home.store is not None
        return Objects(self._home.store)

    def check(self) -> None:
        """Make sure that the store can be used; see `Objects.check`."""
        used = self._home.shared / "used"
        self.objects.check(used=used.exists())
        used.parent.mkdir(parents=True, exist_ok=True)
        used.touch()

    def find(self, kind: str, key: str) -> Manifest | None:
        """Return the manifest that a key stands for, None where nothing was published."""
        return self._manifest(_published(kind, key), key)

    def manifest(self, ref: ArtifactRef) -> Manifest | None:
        """Return the manifest of what a reference refers to, None if it is not in the store."""
        return self._manifest(f"{_content(ref)}/{MANIFEST}", ref.key)

    def fetch(self, manifest: Manifest, names: Iterable[str], into: Path) -> None:
        """Download files of an artifact and verify their checksums.

        Raises:
            DamagedArtifactError: a file is missing or changed; this is noted, and whoever makes the
                artifact next mends the store.
        """
        ref = reference(manifest)
        try:
            _check_names(ref, manifest["files"])
            _each(lambda name: self._download(ref, name, manifest["files"][name], into), names)
        except DamagedArtifactError:
            self._note("damaged", ref.kind, ref.key).write_text(ref.digest)
            raise

    def publish(self, manifest: Manifest, folder: Path, *, mending: bool = False) -> ArtifactRef:
        """Upload an artifact; return the one that its key stands for: this, or an earlier one.

        ``mending`` takes the place of what is there, which is damaged.
        """
        ref, content = reference(manifest), json.dumps(manifest, indent=1).encode()
        published = _published(ref.kind, ref.key)
        there = None if mending else self.find(ref.kind, ref.key)
        if there is None or reference(there) != ref:
            to = _content(ref)
            _each(lambda name: self.objects.write(f"{to}/{name}", folder / name), manifest["files"])
            self.objects.write(f"{to}/{MANIFEST}", content)
        if there is None and (mending or not self.objects.create(published, content)):
            there = None if mending else self.find(ref.kind, ref.key)
            if there is None:
                self.objects.write(published, content)  # over what is damaged
        self.note_known(ref)
        if there is not None:
            return reference(there)
        self.forget_damage(ref.kind, ref.key)
        return ref

    def known(self, kind: str, key: str) -> str | None:
        """Return the digest of the artifact that is known to be in the store, if one is."""
        try:
            return self._note("known", kind, key).read_text(errors="replace")
        except (FileNotFoundError, IsADirectoryError):
            return None

    def note_known(self, ref: ArtifactRef) -> None:
        """Write down that the artifact is in the store."""
        note = self._note("known", ref.kind, ref.key)
        discard(note)  # whatever damage made of it
        note.write_text(ref.digest)

    def damaged(self, kind: str, key: str) -> bool:
        """Tell whether the store's artifact was found damaged, and was not mended since."""
        return self._note("damaged", kind, key).exists()

    def forget_damage(self, kind: str, key: str) -> None:
        """Write down that the store's artifact is sound."""
        self._note("damaged", kind, key).unlink(missing_ok=True)

    def _manifest(self, name: str, key: str) -> Manifest | None:
        content = self.objects.read(name)
        if content is None:
            return None
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            manifest: Manifest = json.loads(content)
            sound = digest_of(manifest["kind"], manifest["files"]) == manifest["digest"]
            if sound and manifest["key"] == key and isinstance(manifest["facts"], dict):
                return manifest
        log.warning("%s/%s is damaged, and counts as nothing: %s", self.objects.url, name, MEND)
        return None

    def _download(self, ref: ArtifactRef, name: str, expected: str, into: Path) -> None:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        where = f"{self.objects.url}/{_content(ref)}/{name}"
        if not self.objects.download(f"{_content(ref)}/{name}", into / name):
            raise DamagedArtifactError(f"{where} is missing")
        if checksum(into / name) != expected:
            raise DamagedArtifactError(f"{where} does not have its recorded sha256 {expected}")

    def _note(self, what: str, kind: str, key: str) -> Path:
        path = self._home.shared / what / f"{kind}-{key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def manifest_of(
    kind: str, key: str, folder: Path, facts: dict[str, Any] | None = None, inputs: Any = None
) -> Manifest:
    """Return the manifest of an artifact whose files are in a folder."""
    files = checksums(folder)
    return {
        "kind": kind,
        "key": key,
        "digest": digest_of(kind, files),
        "files": files,
        "facts": facts or {},
        "inputs": inputs,
    }


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
        list(pool.map(work, names))  # the first error is raised, and what has not begun does not
