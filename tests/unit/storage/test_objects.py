"""The promises of a shared store, whatever it lies in."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.shared.objects import FORMAT, Objects, StoreUnavailableError


def begun(url: str) -> Objects:
    objects = Objects(url)
    objects.check(used=False)
    return objects


@pytest.fixture(params=["memory", "folder", "file"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    places = {
        "memory": f"memory://{tmp_path}",
        "folder": str(tmp_path / "deep" / "store"),
        "file": f"file://{tmp_path}/store",
    }
    return begun(places[request.param])


def test_an_object_is_created_once_and_may_be_written_over(objects: Objects) -> None:
    assert objects.read("a/b") is None
    assert objects.create("a/b", b"1")
    assert not objects.create("a/b", b"2")
    assert objects.read("a/b") == b"1"
    objects.write("a/b", b"3")
    assert objects.read("a/b") == b"3"


def test_who_opens_a_store_again_finds_what_is_there(objects: Objects) -> None:
    objects.write("a/b", b"1")
    assert Objects(objects.url).read("a/b") == b"1"


def test_creating_what_is_there_with_the_same_content_succeeds(objects: Objects) -> None:
    # As when the first try succeeded, and its answer was lost.
    assert objects.create("a", b"mine")
    assert objects.create("a", b"mine")


def test_what_lies_below_a_folder_is_named_by_its_next_part(objects: Objects) -> None:
    for name in ("a/2/x", "a/1/y", "a/1/z/w", "ab/3/x", "b/1/x"):
        objects.write(name, b"")
    assert objects.below("a") == ["1", "2"]
    assert objects.below("nothing") == []


def test_files_go_there_and_come_back(objects: Objects, tmp_path: Path) -> None:
    content = bytes(range(256)) * 25_000  # in several parts
    (tmp_path / "file").write_bytes(content)
    objects.write("deep/er/file", tmp_path / "file")
    assert objects.download("deep/er/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content == objects.read("deep/er/file")
    assert not objects.download("deep/er/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_store_is_checked_again_and_again(objects: Objects) -> None:
    for used in (False, True, True):
        objects.check(used=used)


def test_of_many_who_create_an_object_in_a_folder_one_succeeds(tmp_path: Path) -> None:
    url = begun(str(tmp_path)).url
    start = threading.Barrier(8)

    def create(number: int) -> bool:
        start.wait(timeout=10)
        return Objects(url).create("a", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", FORMAT]


def test_who_reads_while_an_object_is_written_again_sees_one_or_the_other(tmp_path: Path) -> None:
    url = begun(str(tmp_path)).url
    contents = [bytes([number]) * 3_000_000 for number in range(2)]
    Objects(url).write("a", contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(40):
            Objects(url).write("a", contents[number % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        seen = {Objects(url).read("a") for _ in iter(done.is_set, True)}
        written.result()
    assert seen <= {*contents}


def test_a_folder_that_goes_away_is_not_made_anew_nor_read_as_an_empty_one(tmp_path: Path) -> None:
    objects = begun(str(tmp_path / "store"))
    objects.write("a/b/c", b"1")
    away = (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "file").write_bytes(b"2")
    for mount_point in (False, True):
        if mount_point:  # what is left where a file system was mounted
            (tmp_path / "store").mkdir()
        for use in (
            lambda: objects.read("a/b/c"),
            lambda: objects.below("a"),
            lambda: objects.write("a/c", b"2"),
            lambda: objects.create("a/c", b"2"),
            lambda: objects.write("a/c", tmp_path / "file"),
            lambda: Objects(objects.url).download("a/b/c", tmp_path / "file"),
            lambda: objects.check(used=True),
        ):
            with pytest.raises(StoreUnavailableError, match="was there and is gone"):
                use()
    (tmp_path / "store").rmdir()  # nothing was written to it
    away.rename(tmp_path / "store")
    assert objects.below("a") == ["b"] and objects.read("a/b/c") == b"1"


def test_a_folder_that_cannot_be_written_to_is_an_error_that_says_so(tmp_path: Path) -> None:
    folder = "/sys/kernel/store" if os.geteuid() == 0 else str(tmp_path / "closed")
    if os.geteuid() != 0:
        Path(folder).mkdir(mode=0o555)
    with pytest.raises(StoreUnavailableError, match="the folder's owner and rights"):
        begun(folder)


@pytest.mark.parametrize(
    "url", ["az://container/prefix", "gs://bucket/prefix", "s3://bucket/prefix"]
)
def test_a_bucket_that_cannot_be_reached_is_named_with_what_gives_access(
    url: str, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = {
        "az": {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"},
        "gs": {"GOOGLE_SKIP_SIGNATURE": "true"},
        "s3": {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "key"},
    }
    place = {"az": "AZURE_STORAGE_ENDPOINT", "gs": "GOOGLE_BASE_URL", "s3": "AWS_ENDPOINT_URL"}
    kind = url.partition(":")[0]
    for name, value in (access[kind] | {place[kind]: nobody}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreUnavailableError) as error:
        begun(url)
    assert url in str(error.value)
    named = {"az": "AZURE_STORAGE_ACCOUNT_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS"}
    assert named.get(kind, "AWS_SECRET_ACCESS_KEY") in str(error.value)


@pytest.fixture
def nobody() -> Iterator[str]:
    """Return the address of a port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    "use",
    [
        lambda objects: objects.check(used=True),
        lambda objects: objects.read("a"),
        lambda objects: objects.below("a"),
        lambda objects: objects.write("a", b"1"),
        lambda objects: objects.write("a", bytes(20_000_000)),
    ],
    ids=["check", "read", "below", "write", "parts"],
)
def test_a_bucket_that_hangs_is_an_error_after_a_while_for_all_who_ask(
    use: Callable[[Objects], object],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("storage.shared.objects.PATIENCE_S", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    url = f"s3://bucket/{request.node.name}"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreUnavailableError, match="cannot be used") as first:
            use(Objects(url))
        assert url in str(first.value)
    # It was closed meanwhile: who asks now is told the same, and has not waited.
    with pytest.raises(StoreUnavailableError) as second:
        Objects(url).read("b")
    assert str(second.value) == str(first.value)


@pytest.mark.parametrize("url", ["sftp://host/folder", "http://host/x", "s3://", "gs:", "\0"])
def test_an_address_that_can_be_no_store_is_refused_at_once(url: str) -> None:
    with pytest.raises(StorageError, match="cannot be the store.*expected s3://.*az://.*a folder"):
        Objects(url)
