"""Files and folders that are replaced in one step of the file system."""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from storage.errors import StorageError

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_HERE = -100  # AT_FDCWD


@contextmanager
def whole_file(path: Path, *, durable: bool = False, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Give a file to write to; then it is at ``path`` as a whole, after an error not at all.

    Args:
        path: the file; its folder exists.
        durable: whether that holds after a power cut too.
        mode: who may read it.
    """
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


def make_readable(folder: Path) -> None:
    """Let everybody read a folder; libraries write some files for their owner alone."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk: only then a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def swap_folders(one: Path, other: Path) -> None:
    """Exchange two folders in one step: nobody sees one of them missing, or both the same.

    Raises:
        StorageError: the system or the file system cannot do that.
    """
    # Linux's own call: Python's library has none for it.
    library = ctypes.CDLL(None, use_errno=True)
    rename = getattr(library, "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    if rename is not None and rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
        return
    reason = os.strerror(ctypes.get_errno() if rename is not None else errno.ENOSYS)
    raise StorageError(
        f"{one.parent} cannot be compacted: its system cannot exchange two folders in one step "
        f"({reason}); a local Linux file system (ext4, xfs, btrfs) can"
    )


def discard(path: Path) -> None:
    """Remove what is at a path, a folder with all that is in it; nothing need be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
