"""Files that are something else than their name says, told by how they begin."""

import os
from pathlib import Path

from real_tasks.vocabulary.errors import UserInputError

POINTER = b"version https://git-lfs"
"""How the small file begins that git keeps where git-lfs has not fetched the large one."""
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""In bytes; longer ones are on no file system of a kind that is known here."""
ABOUT_POINTER = "is a git-lfs pointer, not the file itself; `git lfs pull` in its folder fetches it"


def expanded(path: str | Path) -> Path:
    """Return a path with the home of the user that it begins with (``~``), where there is one.

    Raises:
        UserInputError: it is longer than a path can be, so that asking for the file would fail.
    """
    longest = max(map(len, map(os.fsencode, Path(path).parts)), default=0)
    if longest > _LONGEST_NAME or len(os.fsencode(path)) > _LONGEST_PATH:
        raise UserInputError(f"the path {str(path)!r} is too long for a file; shorten it")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def check_no_pointer(path: Path) -> None:
    """Check that a file is there itself.

    Raises:
        UserInputError: a git-lfs pointer is in its place.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise UserInputError(f"{path} {ABOUT_POINTER}")
