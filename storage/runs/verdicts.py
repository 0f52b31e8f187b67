"""What judges said, kept on disk by a hash of all that decides it: a run that stopped goes on."""

import logging
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from storage.errors import StorageError
from storage.paths import Home
from storage.whole_files import whole_file

SUFFIX = ".json"
N_FOLDER_CHARACTERS = 2
_KEY = re.compile(r"[0-9a-z]{4,128}")

log = logging.getLogger(__name__)


class VerdictMemory(MutableMapping[str, str]):
    """A mapping from hash to text, one file an entry, under a home.

    Safe for several threads and processes: an entry is there whole or not at all, and the last
    writer of a key wins. Keys are 4 to 128 digits and lower-case letters (a hexadecimal hash).
    """

    def __init__(self, home: Home) -> None:
        """Use the verdicts of ``home``; nothing is created before something is kept."""
        self._root = home.verdicts

    def __getitem__(self, key: str) -> str:
        """Return what is kept; an entry that is no text counts as missing, with a warning.

        Raises:
            KeyError: nothing is kept under the key.
            StorageError: the entry is there but may not be read.
        """
        path = self._path(key)
        try:
            return path.read_bytes().decode()
        except FileNotFoundError:
            raise KeyError(key) from None
        except UnicodeDecodeError as error:
            log.warning("damaged verdict %s is not used: %s", path, error)
            raise KeyError(key) from error
        except OSError as error:
            raise _refused(path, "read", error) from error

    def __setitem__(self, key: str, value: str) -> None:
        """Keep a text.

        Raises:
            StorageError: the key cannot name a file, or the file cannot be written.
        """
        try:
            path = self._path(key)
        except KeyError:
            raise StorageError(
                f"{key!r} cannot name a verdict; expected a hash of 4 to 128 digits and lower-case "
                "letters"
            ) from None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                file.write(value.encode())
        except OSError as error:
            raise _refused(path, "written", error) from error

    def __delitem__(self, key: str) -> None:
        """Forget an entry.

        Raises:
            KeyError: nothing is kept under the key.
        """
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        """Yield the keys, sorted."""
        paths = self._root.glob(f"{'?' * N_FOLDER_CHARACTERS}/*{SUFFIX}")
        names = sorted(path.name.removesuffix(SUFFIX) for path in paths)
        return (name for name in names if _KEY.fullmatch(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, key: object) -> Path:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise KeyError(key)
        return self._root / key[:N_FOLDER_CHARACTERS] / f"{key}{SUFFIX}"


def _refused(path: Path, what: str, error: OSError) -> StorageError:
    return StorageError(
        f"the verdict {path} cannot be {what} ({error.strerror}); mend the folder's rights or "
        "space, or choose another home with --home or REAL_HOME"
    )
