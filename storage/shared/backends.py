"""Where objects are: a bucket, through fsspec, or a folder of a shared file system."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from storage.errors import StorageError
from storage.paths import check_folder
from storage.shared.objects import Objects, StoreUnavailableError

_ALIASES = {"s3a": "s3", "gcs": "gs", "local": "file", "": "file"}
# fsspec's other kinds write an object and look for it in two steps, and another may come between.
_EXCLUSIVE = ("file", "gs", "memory", "s3")
_PACKAGES = {
    "s3": ("s3fs", "pip install real-steering[s3]"),
    "gs": ("gcsfs", "pip install gcsfs"),
}
_ACCESS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), AWS_DEFAULT_REGION, and "
    "AWS_ENDPOINT_URL for a server other than AWS",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, the path of a service account's key file",
    "file": "the folder's owner and rights",
}
_EXISTS_CODES = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")

_FOUND: set[Path] = set()
"""Folders that this process has found to be there."""


def open_objects(url: str) -> Objects:
    """Return the objects of a store: ``s3://bucket/prefix``, ``gs://...``, or a folder.

    Raises:
        StorageError: its kind is not supported, or the package for it is not installed.
    """
    kind = _kind(url)
    if kind not in _EXCLUSIVE:
        raise StorageError(
            f"the store {url} is of the kind {kind!r}, of which it is not known that it can create "
            "an object only where there is none; expected s3://, gs:// or a folder that all "
            "machines see"
        )
    if kind == "file":
        return FolderObjects(url)
    package, install = _PACKAGES.get(kind, ("fsspec", "pip install fsspec"))
    if importlib.util.find_spec(package) is None:
        raise StorageError(f"the store {url} needs the package {package}: {install}")
    return BucketObjects(url)


def check_store(url: str) -> None:
    """Check that a store can be one, without asking it anything.

    Raises:
        StorageError: as `open_objects`; or a path where no folder is, or can be made.
    """
    try:
        os.fsencode(url).decode()
        if "\0" in url or url.endswith(":"):
            raise ValueError("it is no address")
        if isinstance(open_objects(url), FolderObjects):
            check_folder(Path(url.partition("://")[2] or url).absolute())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StorageError(
            f"{url[:200]!r} cannot be the store ({why}); expected s3://bucket/prefix, gs://... or "
            "a folder that all machines see: name another with --store or REAL_STORE"
        ) from error


class BucketObjects(Objects):
    """Objects of an object store, through fsspec."""

    def __init__(self, url: str) -> None:
        """Use the objects under ``url``."""
        super().__init__(url)
        from fsspec.core import url_to_fs

        with self._reaching():
            # A kept listing would not show what other machines write.
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        self._root = str(root).rstrip("/")

    def write(self, name: str, content: bytes) -> None:
        """See `Objects`."""
        with self._reaching():
            self._fs.pipe_file(self._path(name), content)

    def read(self, name: str) -> bytes | None:
        """See `Objects`."""
        with self._reaching():
            try:
                content: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def upload(self, name: str, path: Path) -> None:
        """See `Objects`."""
        with self._reaching():
            self._fs.put_file(str(path), self._path(name))

    def download(self, name: str, path: Path) -> bool:
        """See `Objects`."""
        with self._reaching():
            try:
                self._fs.get_file(self._path(name), str(path))
            except FileNotFoundError:
                return False
            return True

    def names(self, prefix: str) -> list[str]:
        """See `Objects`."""
        with self._reaching():
            found = self._fs.find(self._path(prefix))
        return sorted(str(path).removeprefix(f"{self._root}/") for path in found)

    def remove(self, name: str) -> None:
        """See `Objects`."""
        with self._reaching():
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def _create(self, name: str, content: bytes) -> bool:
        with self._reaching():
            try:
                self._fs.pipe_file(self._path(name), content, mode="create")
            except Exception as error:
                if _says_exists(error):
                    return False
                raise
            return True

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every backend has errors of its own
            raise _unavailable(self.url, error) from error


class FolderObjects(Objects):
    """Objects as files of a folder that all machines see, written so that they appear whole."""

    def __init__(self, url: str) -> None:
        """Use the objects under ``url``, a path."""
        super().__init__(url)
        self._root = Path(url.partition("://")[2] or url).absolute()

    def write(self, name: str, content: bytes) -> None:
        """See `Objects`."""
        with self._written(name, lambda path: path.write_bytes(content)) as (temporary, path):
            temporary.replace(path)

    def read(self, name: str) -> bytes | None:
        """See `Objects`."""
        with self._reaching():
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None

    def upload(self, name: str, path: Path) -> None:
        """See `Objects`."""
        with self._written(name, lambda to: shutil.copyfile(path, to)) as (temporary, final):
            temporary.replace(final)

    def download(self, name: str, path: Path) -> bool:
        """See `Objects`."""
        with self._reaching():
            if not (self._root / name).is_file():
                return False
            shutil.copyfile(self._root / name, path)
            return True

    def names(self, prefix: str) -> list[str]:
        """See `Objects`."""
        with self._reaching():
            found = [p for p in (self._root / prefix).rglob("[!.]*") if p.is_file()]
            return sorted(str(path.relative_to(self._root)) for path in found)

    def remove(self, name: str) -> None:
        """See `Objects`."""
        with self._reaching():
            (self._root / name).unlink(missing_ok=True)

    def _create(self, name: str, content: bytes) -> bool:
        with self._written(name, lambda path: path.write_bytes(content)) as (temporary, path):
            try:
                os.link(temporary, path)  # unlike a rename, it fails where there is one
            except FileExistsError:
                return False
            return True

    @contextmanager
    def _written(self, name: str, write: Callable[[Path], Any]) -> Iterator[tuple[Path, Path]]:
        """Give a temporary file with the content, and the path that it is to get."""
        path = self._root / name
        with self._reaching():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, made = tempfile.mkstemp(prefix=".new-", dir=path.parent)
            try:
                write(Path(made))
                os.fsync(handle)
                Path(made).chmod(0o644)
                yield Path(made), path
            finally:
                os.close(handle)
                Path(made).unlink(missing_ok=True)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            self._still_there()
            yield
        except OSError as error:
            raise _unavailable(self.url, error) from error

    def _still_there(self) -> None:
        # Made anew, or read as an empty one, a share that was unmounted would be a second store.
        if self._root.is_dir():
            _FOUND.add(self._root)
        elif self._root in _FOUND:
            raise FileNotFoundError(f"the folder {self._root} was there and is gone")


def _kind(url: str) -> str:
    scheme = urlsplit(url).scheme
    return _ALIASES.get(scheme, scheme)


def _says_exists(error: Exception) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    code = str(response.get("Error", {}).get("Code"))
    return isinstance(error, FileExistsError) or code in _EXISTS_CODES


def _unavailable(url: str, error: Exception) -> StoreUnavailableError:
    found = f"{type(error).__name__}: {error}"
    access = _ACCESS.get(_kind(url), "its settings")
    return StoreUnavailableError(
        f"the store {url} cannot be used ({found}); check that it exists and can be reached, and "
        f"{access}. What is done is kept in the home, and the next run uploads it; without "
        "REAL_STORE the home works alone"
    )
