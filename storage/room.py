"""Room on the disk: that there is some before work begins, and which errors say that it ran out."""

import errno
import shutil

from storage.errors import StorageError
from storage.paths import Home

NEEDED_BYTES = 64_000_000
"""Below this nothing begins: the databases of Prefect and MLflow alone take half of it."""
KEPT_BYTES = 4_000_000
"""Below this a run is ended while its databases still work."""

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of libraries in other languages only the message is left.
_MESSAGES = ("No space left on device", "database or disk is full", "Disk quota exceeded")


class NoRoomError(StorageError):
    """The disk is full."""


def check_room(home: Home, needed: int = NEEDED_BYTES) -> None:
    """Require ``needed`` free bytes on the disk of a home that exists.

    Raises:
        NoRoomError: less than that is free.
    """
    free = shutil.disk_usage(home.root).free
    if free < needed:
        raise NoRoomError(
            f"the disk of {home.root} is full: {free / 1e6:.1f} MB are free, at least "
            f"{needed / 1e6:.0f} MB are needed. {_MEND}"
        )


def room_error(home: Home, error: BaseException | None) -> NoRoomError | None:
    """Return what to say of an error that comes from a full disk, however it was wrapped."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, NoRoomError):
            return error
        if _says_full(error):
            return NoRoomError(
                f"the disk of {home.root}, or the quota on it, is full ({error}). {_MEND}"
            )
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


_MEND = (
    "Make room (`real clean` shows what of the home nobody needs), or choose a home elsewhere with "
    "--home or REAL_HOME; what is done is kept, and the same command goes on from there"
)


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _CODES:
        return True
    return any(message in str(error) for message in _MESSAGES)
