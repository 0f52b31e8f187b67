"""What is asked of a store that machines share: objects by name, in a bucket or in a folder.

The rest builds on two promises: an object appears whole or not at all, and of several writers who
`create` one name, one succeeds. The second is tried out before a store is used.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from storage.errors import StorageError
from storage.paths import check_folder

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PATIENCE_S = 60
"""Seconds after which a bucket that does not answer counts as gone."""
FORMAT = "format.txt"
_CONTENT = "real-steering store, format 1"
_EXPECTED = (
    "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or a folder that all machines "
    "see"
)
_ACCESS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, with the extra s3), "
    "AWS_DEFAULT_REGION, and AWS_ENDPOINT_URL for a server other than AWS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS, the path of a service account's key file",
    "azure": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "local": "the folder's owner and rights",
    "memory": "its address",
}
_DETAILS = "\n\nDebug source"  # which is long
_MEMORY: dict[str, MemoryStore] = {}
"""Stores of this process alone, by URL."""
_SILENT: dict[str, tuple[float, str]] = {}
"""Until when stores count as gone that did not answer, and the error: not everybody waits again."""


class StoreUnavailableError(StorageError):
    """The shared store cannot be reached, or does not let us in."""


def check_store(url: str) -> None:
    """Check that a store can be one, without asking it anything.

    Raises:
        StorageError: its kind is not supported; or a path where no folder is, or can be made.
    """
    try:
        os.fsencode(url).decode()
        if "\0" in url or url.endswith(":"):
            raise ValueError("it is no address")
        if _kind(url) == "local":
            check_folder(_path(url))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StorageError(
            f"{url[:200]!r} cannot be the store ({why}); expected {_EXPECTED}: name another with "
            "--store or REAL_STORE"
        ) from error


class Objects:
    """Objects by name, as ``artifacts/scores/...``; every method may be called by any thread.

    Every method raises `StoreUnavailableError` where the store cannot be reached.
    """

    def __init__(self, url: str) -> None:
        """Use the objects under ``url``; nothing is asked of the store yet.

        Raises:
            StorageError: as ``check_store``.
        """
        check_store(url)
        self.url, self._kind = url, _kind(url)

    def check(self, *, used: bool) -> None:
        """Make sure that the store can be written to, and refuses to create an object twice.

        Args:
            used: whether it was used from here before: a folder that is not there has then gone
                away, and is not made anew.

        Raises:
            StoreUnavailableError: it cannot be reached, or does not let us write.
            StorageError: it overwrites what it should not.
        """
        contents = [f"{_CONTENT}\n{secrets.token_hex(8)}\n".encode() for _ in range(2)]
        with self._reached(begin=not used) as store:
            created = _put(store, FORMAT, contents[0], "create")
        if created and self.create(FORMAT, contents[1]):
            raise StorageError(
                f"the store {self.url} overwrites objects that it is told not to (it ignores "
                "If-None-Match: *), so that two machines could not be kept apart; use a server "
                "with conditional writes, as AWS S3, or a folder that all machines see"
            )

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that is not there; of several writers at once one gets True.

        True too where the object is there with this very content: a try whose answer was lost is
        repeated on the way, and then finds its own object.
        """
        with self._reached() as store:
            created = _put(store, name, content, "create")
        return created or self.read(name) == content

    def write(self, name: str, content: bytes | Path) -> None:
        """Write an object, from bytes or a file, over an older one if there is one."""
        with self._reached() as store:
            _put(store, name, content, "overwrite")

    def read(self, name: str) -> bytes | None:
        """Return an object's content, None if there is no such object."""
        found = self._get(name)
        return None if found is None else b"".join(self._pieces(found))

    def download(self, name: str, path: Path) -> bool:
        """Write an object as a file, which may be half there after an error; False: no object."""
        found = self._get(name)
        if found is not None:
            with path.open("wb") as file:
                file.writelines(self._pieces(found))
        return found is not None

    def below(self, folder: str) -> list[str]:
        """Return how the names that begin with ``folder/`` go on, up to the next slash; sorted."""
        with self._reached() as store:
            found = obstore.list_with_delimiter(store, folder)["common_prefixes"]
        return sorted(name.rpartition("/")[2] for name in found)

    def _get(self, name: str) -> "obstore.GetResult | None":
        with self._reached() as store:
            try:
                return obstore.get(store, name)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def _pieces(self, found: "obstore.GetResult") -> Iterator[bytes]:
        with self._reached():
            yield from found

    @contextmanager
    def _reached(self, *, begin: bool = False) -> Iterator["ObjectStore"]:
        """Give the store; what goes wrong with it meanwhile is said in words."""
        since = time.monotonic()
        if since < _SILENT.get(self.url, (0.0,))[0]:
            raise StoreUnavailableError(_SILENT[self.url][1])
        try:
            yield self._folder(begin) if self._kind == "local" else self._bucket
        except Exception as error:  # every kind of store has errors of its own
            said = " ".join(str(error).partition(_DETAILS)[0].split())
            message = (
                f"the store {self.url} cannot be used ({type(error).__name__}: {said}); check that "
                f"it exists and can be reached, and {_ACCESS[self._kind]}. What is done is kept in "
                "the home, and the next run uploads it; without REAL_STORE the home works alone"
            )
            if time.monotonic() - since > PATIENCE_S / 3:
                _SILENT[self.url] = (time.monotonic() + PATIENCE_S, message)
            raise StoreUnavailableError(message) from error

    def _folder(self, begin: bool) -> "ObjectStore":
        path = _path(self.url)
        # Made anew, or read as an empty one, a share that was unmounted would be a second store.
        if not begin and not (path / FORMAT).is_file():
            raise FileNotFoundError(
                f"the folder {path} has no {FORMAT}: no run has begun a store there, or it was "
                "there and is gone"
            )
        return LocalStore(path, mkdir=begin)

    @cached_property
    def _bucket(self) -> "ObjectStore":
        if self._kind == "memory":
            return _MEMORY.setdefault(self.url, MemoryStore())
        options: dict[str, Any] = {}
        if self._kind == "s3" and "AWS_ACCESS_KEY_ID" not in os.environ and find_spec("boto3"):
            from obstore.auth.boto3 import Boto3CredentialProvider  # it knows AWS's profiles

            options["credential_provider"] = Boto3CredentialProvider()
        answer, patience = timedelta(seconds=PATIENCE_S / 2), timedelta(seconds=PATIENCE_S)
        return from_url(
            self.url,
            client_options={"allow_http": True, "read_timeout": answer, "timeout": "1h"},
            retry_config={"max_retries": 3, "retry_timeout": patience},
            **options,
        )


def _put(
    store: "ObjectStore", name: str, content: bytes | Path, mode: Literal["create", "overwrite"]
) -> bool:
    """Write an object; False: it was to be created, and is there."""
    try:
        # Few at once: each part has to be through before an answer is given up.
        obstore.put(store, name, content, mode=mode, max_concurrency=2)
    except AlreadyExistsError:
        return False
    return True


def _kind(url: str) -> str:
    if "://" not in url:
        return "local"
    with suppress(BaseError):
        kind = obstore.parse_scheme(url)
        if kind != "http":
            return kind
    raise ValueError("its kind is not supported")


def _path(url: str) -> Path:
    return Path(url.partition("://")[2] or url).absolute()
