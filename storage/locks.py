"""Locks between processes, which the kernel releases when their holder dies, however it dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[IO[str]]:
    """Hold the lock of a file, which is made where there is none.

    Args:
        path: the file, in whose place nothing is ever moved.
        shared: whether others may hold it in this way at the same time.
        wait: whether to wait while another process holds it.

    Raises:
        BlockingIOError: another process holds it, and it is not waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", errors="replace") as handle:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, how if wait else how | fcntl.LOCK_NB)
        yield handle


def is_locked(path: Path) -> bool:
    """Say whether a process holds the lock of a file.

    Raises:
        OSError: the file cannot be opened.
    """
    # A shared lock: a network file system refuses an exclusive one on what is open for reading.
    with path.open("r") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
