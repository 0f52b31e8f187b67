"""Seals: digests within Parquet files, by which every changed bit of them is noticed.

Between the pages and the footer lie a mark and two SHA-256: of the footer, and of all but the seal.
Readers of Parquet do not look there, since the footer says where the pages are; and the seal goes
wherever the file goes. Files without a seal, of earlier versions, are read as they are.
"""

import hashlib
import io
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from storage.errors import StorageError

_MARK = bytes.fromhex("9d5e1f7a3c8846b2a0d4e6f1527b90c3")
_KEY = b"real.sealed"
_LENGTH = len(_MARK) + 2 * hashlib.sha256().digest_size
_TAIL = 8  # the footer's length, and Parquet's own mark
_CHUNK = 1 << 20


class DamagedTableError(StorageError):
    """A table's file cannot be read, or is not as it was written."""


def sealable(schema: pa.Schema) -> pa.Schema:
    """Return the schema with a note, within the footer, that the file has a seal."""
    return schema.with_metadata({**(schema.metadata or {}), _KEY: b"sha256"})


def seal(file: BinaryIO) -> None:
    """Seal a Parquet file of a ``sealable`` schema that was just written."""
    start, footer = _footer(file)
    whole = _digest(file, start, footer)
    file.seek(start)
    file.write(_MARK + hashlib.sha256(footer).digest() + whole + footer)


def check(path: Path, file: BinaryIO, *, pages: bool = True) -> None:
    """Check a file's seal, if it has one: the whole file, or its footer alone without ``pages``.

    Raises:
        DamagedTableError: it is not as it was written.
    """
    try:
        start, footer = _footer(file)
    except ValueError as error:
        raise damaged(path, str(error)) from error
    file.seek(max(start - _LENGTH, 0))
    found = file.read(start - file.tell())
    if found[: len(_MARK)] != _MARK:
        if _KEY in footer:
            raise damaged(path, "its seal is broken")
        return
    digest = hashlib.sha256(footer)
    if found[len(_MARK) :][: digest.digest_size] != digest.digest():
        raise damaged(path, "its footer does not have the recorded SHA-256")
    whole = found[len(_MARK) + digest.digest_size :]
    if pages and whole != _digest(file, start - _LENGTH, footer):
        raise damaged(path, "it does not have its recorded SHA-256")


def is_sound(path: Path) -> bool:
    """Say whether a file has what its seal says; one that is gone has not.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            check(path, file)
    except (DamagedTableError, FileNotFoundError):
        return False
    return True


def check_content(path: Path, content: bytes) -> None:
    """Check the seal in the content of a file; see ``check``."""
    check(path, io.BytesIO(content))


def damaged(path: Path, why: object) -> DamagedTableError:
    """Return the error that says which file is damaged, and how to go on."""
    return DamagedTableError(
        f"{path} is damaged ({why}); rename or remove it, and run its configuration again: what "
        "is in the cache is not made anew"
    )


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """Return where the footer starts, and all bytes from there on."""
    size = file.seek(0, io.SEEK_END)
    if size < 2 * _TAIL:
        raise ValueError(f"it has {size} bytes")
    file.seek(size - _TAIL)
    tail = file.read(_TAIL)
    start = size - _TAIL - int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or start < 4:
        raise ValueError("it does not end as a Parquet file")
    file.seek(start)
    return start, file.read()


def _digest(file: BinaryIO, end: int, footer: bytes) -> bytes:
    """Return the SHA-256 of what is before ``end``, and of the footer behind it."""
    whole = hashlib.sha256()
    file.seek(0)
    while file.tell() < end:
        whole.update(file.read(min(_CHUNK, end - file.tell())))
    whole.update(footer)
    return whole.digest()
