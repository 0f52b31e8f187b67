"""Large files that are fetched once, checked, and kept."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from storage.errors import StorageError
from storage.locks import locked
from storage.whole_files import discard


def kept_file(file: Path, sha256: str, fetch: Callable[[Path, Path], None]) -> Path:
    """Return a file, fetched unless it is there; several that ask at once wait for one of them.

    Args:
        file: in a folder of its own.
        sha256: of its content.
        fetch: is given an empty folder to work in, and another one for what is to be kept: a file
            of that name, and others beside it. Whatever it raises, nothing of it is left.

    Raises:
        StorageError: the file that is there, or was fetched, is another one; names both checksums.
    """
    if not file.is_file():
        # Not in the folder itself, which a person may remove or fill.
        with locked(file.parent.with_suffix(".lock")):
            if not file.is_file():
                _fetch(file, sha256, fetch)
    _check(file, file, sha256)
    return file


def _fetch(file: Path, sha256: str, fetch: Callable[[Path, Path], None]) -> None:
    room = file.parent.with_name(f".new-{file.parent.name}")
    discard(room)  # of one that was killed
    work, found = room / "work", room / "kept"
    try:
        for folder in (work, found, file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        fetch(work, found)
        _check(found / file.name, file, sha256)
        for path in sorted(found.iterdir(), key=lambda path: path.name == file.name):
            path.replace(file.parent / path.name)
    finally:
        discard(room)


def _check(found: Path, place: Path, sha256: str) -> None:
    stat = found.stat()
    digest = _checksum(found, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if digest != sha256:
        mend = "nothing of it was kept" if found != place else f"remove {place.parent}"
        raise StorageError(
            f"{place} is not what is meant by that name: its SHA-256 is {digest}, expected "
            f"{sha256}; {mend}, and fetch it again, from another source if it stays so"
        )


@lru_cache
def _checksum(file: Path, *_state: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
