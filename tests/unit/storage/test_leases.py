"""The promises of a shared store, and the turns that machines take by them."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.shared.backends import FolderObjects, open_objects
from storage.shared.lease import LeaseTiming, turn
from storage.shared.objects import Objects, StoreUnavailableError

QUICK = LeaseTiming(beat=0.05, expiry=0.4, poll=0.02)


@pytest.fixture(params=["memory", "folder", "file"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    places = {
        "memory": f"memory://{tmp_path}",
        "folder": str(tmp_path / "store"),
        "file": f"file://{tmp_path}/store",
    }
    return open_objects(places[request.param])


def test_an_object_is_created_once_and_may_be_written_over(objects: Objects) -> None:
    assert objects.read("a/b") is None
    assert objects.create("a/b", b"1")
    assert not objects.create("a/b", b"2")
    assert objects.read("a/b") == b"1"
    objects.write("a/b", b"3")
    assert objects.read("a/b") == b"3"


def test_creating_what_is_there_with_the_same_content_succeeds(objects: Objects) -> None:
    # As when the first try succeeded, and its answer was lost.
    assert objects.create("a", b"mine")
    assert objects.create("a", b"mine")


def test_names_are_those_under_a_prefix_and_removed_objects_are_gone(objects: Objects) -> None:
    for name in ("a/2", "a/1", "a/c/3", "ab", "b/1"):
        objects.write(name, b"")
    assert objects.names("a") == ["a/1", "a/2", "a/c/3"]
    assert objects.names("nothing") == []
    objects.remove("a/1")
    objects.remove("a/1")
    assert objects.names("a") == ["a/2", "a/c/3"]


def test_files_go_there_and_come_back(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 100)
    objects.upload("deep/er/file", tmp_path / "file")
    assert objects.download("deep/er/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
    assert not objects.download("deep/er/none", tmp_path / "none")


def test_a_store_is_checked_again_and_again(objects: Objects) -> None:
    for _ in range(3):
        objects.check()


def test_a_store_that_overwrites_what_it_should_not_is_refused(tmp_path: Path) -> None:
    class Careless(FolderObjects):
        def _create(self, name: str, content: bytes) -> bool:
            self.write(name, content)
            return True

    with pytest.raises(StorageError, match="conditional writes"):
        Careless(str(tmp_path)).check()


def test_of_many_who_create_an_object_in_a_folder_one_succeeds(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def create(number: int) -> bool:
        start.wait(timeout=10)
        return FolderObjects(str(tmp_path)).create("a", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def leave_a_lease(objects: Objects, owner: str) -> None:
    """Take a turn and die: no sign of life, nothing given back."""
    objects.create("leases/x/000000", f'{{"owner": "{owner}", "beat": 0}}'.encode())


def nothing() -> None:
    return None


def test_who_waits_gets_what_the_other_made(objects: Objects) -> None:
    made: list[str] = []
    begun = threading.Event()

    def work() -> None:
        with turn(objects, "leases/x", "a", QUICK, nothing):
            begun.set()
            time.sleep(0.8)  # longer than a lease without signs of life
            made.append("it")

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        assert begun.wait(timeout=10)
        with turn(objects, "leases/x", "b", QUICK, lambda: made[0] if made else None) as found:
            assert found == "it"
        done.result()
    assert objects.names("leases") == []


def test_what_was_made_just_before_the_turn_came_is_found(objects: Objects) -> None:
    looks = iter([None, "it"])
    with turn(objects, "leases/x", "a", QUICK, lambda: next(looks)) as found:
        assert found == "it"


def test_a_turn_is_given_back_when_the_work_fails(objects: Objects) -> None:
    with (
        pytest.raises(RuntimeError, match="disk full"),
        turn(objects, "leases/x", "a", QUICK, nothing),
    ):
        raise RuntimeError("disk full")
    assert objects.names("leases") == []


def test_a_lease_without_signs_of_life_is_taken_over_and_cleared(
    objects: Objects, caplog: pytest.LogCaptureFixture
) -> None:
    leave_a_lease(objects, "dead:1")
    with turn(objects, "leases/x", "b", QUICK, nothing) as found:
        assert found is None
        assert objects.names("leases") == ["leases/x/000000", "leases/x/000001"]
    assert "dead:1 gives no sign of life" in caplog.text
    assert objects.names("leases") == []


@pytest.mark.parametrize("years", [-10, 10])
def test_clocks_of_machines_may_differ(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    true = time.time
    leave_a_lease(objects, "dead:1")
    monkeypatch.setattr(time, "time", lambda: true() + years * 31_536_000)
    start = time.monotonic()
    with turn(objects, "leases/x", "b", QUICK, nothing):
        waited = time.monotonic() - start
    assert waited >= QUICK.expiry


def test_a_lease_that_its_owner_left_when_it_died_is_taken_over_at_once(objects: Objects) -> None:
    leave_a_lease(objects, "me")
    forever = LeaseTiming(beat=60, expiry=600, poll=600)
    with turn(objects, "leases/x", "me", forever, nothing) as found:
        assert found is None


def test_a_dead_holders_turn_goes_to_one_of_those_who_wait(tmp_path: Path) -> None:
    objects = FolderObjects(str(tmp_path))
    leave_a_lease(objects, "dead:1")
    made: list[int] = []

    def work(number: int) -> None:
        done: Callable[[], int | None] = lambda: made[0] if made else None  # noqa: E731
        with turn(objects, "leases/x", str(number), QUICK, done) as found:
            if found is None:
                time.sleep(0.1)
                made.append(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(made) == 1


def test_work_goes_on_when_no_sign_of_life_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(self: FolderObjects, name: str, content: bytes) -> None:
        raise StoreUnavailableError("gone")

    with turn(FolderObjects(str(tmp_path)), "leases/x", "a", QUICK, nothing):
        monkeypatch.setattr(FolderObjects, "write", gone)
        time.sleep(0.2)
    assert "no sign of life could be given" in caplog.text
