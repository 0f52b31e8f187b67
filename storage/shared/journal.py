"""What homes shared of their runs: files by checksum in a store, and a journal that names them.

``files/<sha256>`` are files; an object under ``journal/`` names those of one run, with checksums.
It is created once they are all there: others see all of a run or nothing of it. Nothing is ever
changed or removed, so that whoever has read an object of the journal has read it for good.
"""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from storage.errors import DamagedArtifactError
from storage.paths import Home
from storage.shared.backends import open_objects
from storage.shared.remote import identity_of
from storage.whole_files import discard, whole_file

_JOURNAL = "journal"
_UPLOADS = 8


@dataclass(frozen=True)
class Entry:
    """An object of the journal.

    Attributes:
        name: sorts by time of writing.
        home: the identity of the home whose files it names.
        files: checksums by path within the home.
    """

    name: str
    home: str
    files: Mapping[str, str]


class Journal:
    """The journal in the store of a home, and the home's copy of it."""

    def __init__(self, home: Home) -> None:
        """Use the journal in the store of ``home``, which has one."""
        assert home.store is not None
        self.home = identity_of(home)
        self._objects = open_objects(home.store)
        self._copies = home.shared / _JOURNAL

    def entries(self) -> list[Entry]:
        """Return the entries of which there are copies here, the oldest first.

        Raises:
            DamagedArtifactError: one is damaged in the store as well.
        """
        return [self._copied(copy) for copy in sorted(self._copies.glob("[!.]*"))]

    def _copied(self, copy: Path) -> Entry:
        try:
            return _parsed(copy.name, copy.read_bytes())
        except (DamagedArtifactError, IsADirectoryError, FileNotFoundError):
            content = self._objects.read(f"{_JOURNAL}/{copy.name}") or b""
            entry = _parsed(copy.name, content)
            discard(copy)
            self.keep(copy.name, content)
            return entry

    def news(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of every entry of which there is no copy here."""
        for name in self._objects.names(_JOURNAL):
            entry = PurePosixPath(name).name
            if not (self._copies / entry).exists():
                yield entry, self._objects.read(name) or b""

    def entry(self, name: str, content: bytes) -> Entry:
        """Return an entry from its content.

        Raises:
            DamagedArtifactError: it is unreadable.
        """
        return _parsed(name, content)

    def keep(self, name: str, content: bytes) -> None:
        """Keep a copy of an entry: it is done with."""
        self._copies.mkdir(parents=True, exist_ok=True)
        replace(self._copies / name, content)

    def publish(self, files: Mapping[str, bytes]) -> Entry:
        """Upload files and enter them, by their paths within the home."""
        checksums = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        with ThreadPoolExecutor(_UPLOADS) as pool:
            uploads = [
                pool.submit(self._objects.write, _object(checksums[path]), content)
                for path, content in files.items()
            ]
            for upload in uploads:
                upload.result()
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"
        content = json.dumps({"home": self.home, "files": checksums}).encode()
        self._objects.create(f"{_JOURNAL}/{name}", content)
        self.keep(name, content)
        return Entry(name, self.home, checksums)

    def download(self, path: str, sha256: str) -> bytes:
        """Return the content of a file.

        Raises:
            DamagedArtifactError: it is missing, or has another checksum.
        """
        content = self._objects.read(_object(sha256))
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            state = "missing" if content is None else "damaged"
            raise DamagedArtifactError(
                f"{path} is {state} in the store ({self._objects.url}/{_object(sha256)}); to mend "
                f"it, remove {self._copies.parent.name}/files.json from the folder `shared` of the "
                "home that made it, and run anything there"
            )
        return content


def replace(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


def _object(sha256: str) -> str:
    return f"files/{sha256[:2]}/{sha256}"


def _parsed(name: str, content: bytes) -> Entry:
    try:
        tree = json.loads(content)
        files = {str(path): str(sha256) for path, sha256 in tree["files"].items()}
        entry = Entry(name, str(tree["home"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifactError(f"the store's {_JOURNAL}/{name} is unreadable") from error
    for path in files:
        parts = PurePosixPath(path).parts
        if len(parts) < 3 or parts[0] not in ("tables", "runs") or ".." in parts:
            raise DamagedArtifactError(f"the store's {_JOURNAL}/{name} names a file {path!r}")
    return entry
