"""What is asked of a store that several machines share: objects by name, as in a bucket.

The rest builds on two promises: an object appears whole or not at all, and of several writers who
`create` one name, one succeeds. The second is tried out before a store is used.
"""

import secrets
from abc import ABC, abstractmethod
from pathlib import Path

from storage.errors import StorageError

FORMAT = "format.txt"
_CONTENT = "real-steering store, format 1"


class StoreUnavailableError(StorageError):
    """The shared store cannot be reached, or does not let us in."""


class Objects(ABC):
    """Objects by name, as ``artifacts/scores/...``; every method may be called by any thread.

    Every method raises `StoreUnavailableError` where the store cannot be reached.
    """

    def __init__(self, url: str) -> None:
        """Use the objects under ``url``; nothing is asked of the store yet."""
        self.url = url

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that is not there; of several writers at once one gets True.

        True too where the object is there with this very content: a try whose answer was lost is
        repeated on the way, and then finds its own object.
        """
        return self._create(name, content) or self.read(name) == content

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write an object, over an older one if there is one."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return an object's content, None if there is no such object."""

    @abstractmethod
    def upload(self, name: str, path: Path) -> None:
        """Write a file as an object, over an older one if there is one."""

    @abstractmethod
    def download(self, name: str, path: Path) -> bool:
        """Write an object as a file, which may be half there after an error; False: no object."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """Return the names of all objects under ``prefix/``, sorted."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an object, if there is one."""

    def check(self) -> None:
        """Make sure that the store can be written to, and refuses to create an object twice.

        Raises:
            StoreUnavailableError: it cannot be reached, or does not let us write.
            StorageError: it overwrites what it should not.
        """
        contents = [f"{_CONTENT}\n{secrets.token_hex(8)}\n".encode() for _ in range(2)]
        if all(self.create(FORMAT, content) for content in contents):
            raise StorageError(
                f"the store {self.url} overwrites objects that it is told not to (it ignores "
                "If-None-Match: *), so that two machines could not be kept apart; use a server "
                "with conditional writes, as AWS S3, or a folder that all machines see"
            )

    @abstractmethod
    def _create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one."""
