"""Machines that share a store in S3, played by homes and processes; the server is moto's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from storage.artifacts.store import NOT_HERE, ArtifactStore, prepare_home
from storage.paths import Home
from storage.shared.backends import open_objects
from storage.shared.objects import StoreUnavailableError
from storage.sql.catalog import Catalog
from tests.s3_server import s3_server
from tests.terminal import ROOT, SMALL

pytest.importorskip("s3fs", reason="needs the extra s3")
pytest.importorskip("moto.server", reason="needs moto[server]")

MAKER = """
import sys, time
from pathlib import Path
from storage.artifacts.store import ArtifactStore
from storage.shared.lease import LeaseTiming
from storage.paths import Home

root, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def write(folder):
    with (root / "writers.txt").open("a") as log:
        log.write(name)
    (folder / "a.txt").write_text("a")
    (root / f"{name}-begun").touch()
    time.sleep(seconds)
    return {}

store = ArtifactStore(Home(root / name, sys.argv[4]), LeaseTiming(beat=0.3, expiry=2, poll=0.1))
(root / f"{name}-ready").touch()
while not (root / "go").exists():
    time.sleep(0.01)
print(store.make("kind", "key", write).digest)
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run a server with a bucket, let this process and its children use it, and return its URL."""
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (server.environment | {"AWS_MAX_ATTEMPTS": "1"}).items():
            patch.setenv(name, value)
        yield server.url


@pytest.fixture
def store(s3: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a store of the test's own."""
    return f"{s3}/{request.node.name}"


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def machine(tmp_path: Path, store: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that make one artifact, each in a home of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", MAKER, str(tmp_path), name, str(seconds), store]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def never(folder: Path) -> dict[str, Any]:
    raise AssertionError("it was made already")


def writing(folder: Path) -> dict[str, Any]:
    (folder / "a.txt").write_text("a")
    (folder / "large.bin").write_bytes(os.urandom(1) * 30_000_000)
    return {}


def test_the_server_refuses_to_create_an_object_twice(store: str) -> None:
    objects = open_objects(store)
    objects.check()
    assert objects.create("a/b", b"1")
    assert not objects.create("a/b", b"2")
    assert objects.read("a/b") == b"1"
    assert objects.names("a") == ["a/b"]
    assert objects.names("none") == []
    objects.remove("a/b")
    assert objects.read("a/b") is None


def test_of_machines_that_race_one_computes_and_all_get_the_same(
    tmp_path: Path, machine: Callable[..., subprocess.Popen[str]], store: str
) -> None:
    racers = {name: machine(name, 0.5) for name in "ab"}
    wait_for(lambda: all((tmp_path / f"{name}-ready").exists() for name in racers))
    (tmp_path / "go").touch()
    digests = {racer.communicate(timeout=60)[0] for racer in racers.values()}
    assert [racer.returncode for racer in racers.values()] == [0, 0]
    assert len(digests) == 1
    assert len((tmp_path / "writers.txt").read_text()) == 1
    assert open_objects(store).names("leases") == []


def test_a_machine_that_dies_leaves_nothing_to_see_and_another_takes_its_turn(
    tmp_path: Path, machine: Callable[..., subprocess.Popen[str]], store: str
) -> None:
    (tmp_path / "go").touch()
    dying = machine("a", 60)
    wait_for((tmp_path / "a-begun").exists)
    waiting = machine("b", 0)
    wait_for((tmp_path / "b-ready").exists)
    dying.send_signal(signal.SIGKILL)
    dying.wait()
    assert open_objects(store).names("artifacts") == []
    digest = waiting.communicate(timeout=60)[0].strip()
    assert waiting.returncode == 0
    assert (tmp_path / "writers.txt").read_text() == "ab"
    found = ArtifactStore(Home(tmp_path / "c", store)).find("kind", "key")
    assert found is not None
    assert found.digest == digest


def test_large_files_go_there_and_come_back(tmp_path: Path, store: str) -> None:
    ref = ArtifactStore(Home(tmp_path / "a", store)).make("kind", "key", writing)
    other = ArtifactStore(Home(tmp_path / "b", store))
    assert other.make("kind", "key", never) == ref
    assert (other.open(ref) / "large.bin").stat().st_size == 30_000_000


@pytest.fixture
def new_client() -> Iterator[None]:
    """Have a client made that reads the environment anew, and not be used again."""
    clients = fsspec.get_filesystem_class("s3")
    clients.clear_instance_cache()
    yield
    clients.clear_instance_cache()


@pytest.mark.usefixtures("new_client")
def test_a_wrong_bucket_or_no_credentials_are_named_before_anything_is_computed(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreUnavailableError, match="bucket does not exist"):
        prepare_home(Home(tmp_path, "s3://no-such-bucket/x"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreUnavailableError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        prepare_home(Home(tmp_path, f"{s3}/other"))


@pytest.mark.usefixtures("prefect_server")
def test_a_second_machine_makes_nothing_of_what_the_first_one_did(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.experiment import experiment
    from real_tasks.experiment.yaml_files import load_config
    from real_tasks.tasks.reports import write_report

    config = load_config(None, SMALL)
    monkeypatch.setenv("REAL_STORE", store)
    monkeypatch.setenv("REAL_HOME", str(tmp_path / "a"))
    first = experiment(config)
    made = open_objects(store).names("artifacts")
    assert made

    monkeypatch.setenv("REAL_HOME", str(tmp_path / "b"))
    second = experiment(config)
    assert open_objects(store).names("artifacts") == made
    there = Home(tmp_path / "b", store)
    activations = list((there.artifacts / "activations").iterdir())
    assert activations
    assert all((folder / NOT_HERE).exists() for folder in activations)
    assert scores(there, first.run_id) == scores(there, second.run_id)

    monkeypatch.setenv("REAL_HOME", str(tmp_path / "c"))
    third = Home(tmp_path / "c", store)
    runs = Catalog(third).query("SELECT run_id, status FROM runs ORDER BY run_id").to_pylist()
    assert runs == [
        {"run_id": run, "status": "completed"} for run in sorted([first.run_id, second.run_id])
    ]
    report = write_report(third, first.run_id)
    assert report.is_relative_to(tmp_path / "c")
    assert "<html" in report.read_text()


def scores(home: Home, run_id: str) -> list[dict[str, Any]]:
    query = "SELECT * EXCLUDE (run_id) FROM module_scores WHERE run_id = $run_id ORDER BY ALL"
    found: list[dict[str, Any]] = (
        Catalog(home).query(query, parameters={"run_id": run_id}).to_pylist()
    )
    assert found
    return found
