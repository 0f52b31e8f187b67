"""Machines that share a store in S3, played by homes and processes; the server is moto's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.store import NOT_HERE, ArtifactStore, prepare_home
from storage.errors import DamagedArtifactError, StorageError
from storage.paths import Home
from storage.runs.run import find_run, run_folder
from storage.shared.objects import Objects, StoreUnavailableError
from storage.sql.catalog import Catalog
from storage.tables.parquet import read_rows
from tests.s3_server import BUCKET, s3_server
from tests.terminal import ROOT, SMALL

pytest.importorskip("moto.server", reason="needs moto[server]")

pytestmark = pytest.mark.drill

# Makes artifacts of three files, and leaves runs that use them.
MACHINE = """
import sys, time
from pathlib import Path
from storage.artifacts.store import ArtifactStore
from storage.paths import Home
from storage.runs.run import run_folder, write_run
from storage.runs.sharing import pushed_at_end
from tests.unit.storage_rows import run_row

root, name, seconds, url, count = Path(sys.argv[1]), *sys.argv[2:]
home = Home(root / name, url)

def write(folder):
    for number in range(3):
        (folder / f"{number}.txt").write_text(name)
    (root / f"{name}-begun").touch()
    time.sleep(float(seconds))
    return {"by": name}

store = ArtifactStore(home)
(root / f"{name}-ready").touch()
while not (root / "go").exists():
    time.sleep(0.01)
for number in range(int(count)):
    print(store.make("kind", str(number), write).digest, flush=True)
    with pushed_at_end(home):
        run_id = f"{name}{number}"
        run_folder(home, run_id).mkdir(parents=True)
        (run_folder(home, run_id) / "config.yaml").write_text(run_id)
        write_run(home, run_row(run_id, "completed"))
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run a server with a bucket, let this process and its children use it, and return its URL."""
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server.url


@pytest.fixture(params=["s3", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a store of the test's own, in the bucket and as a folder."""
    place = tmp_path / "store"
    url = str(place)
    if request.param == "s3":
        url = f"{request.getfixturevalue('s3')}/{request.node.originalname}"
    Objects(url).check(used=False)
    return url


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def machine(tmp_path: Path, store: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that make artifacts and leave runs, each in a home of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, seconds: float = 0, count: int = 1) -> subprocess.Popen[str]:
        arguments = [str(tmp_path), name, str(seconds), store, str(count)]
        command = [sys.executable, "-c", MACHINE, *arguments]
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


def test_an_object_is_not_created_twice(store: str) -> None:
    objects = Objects(store)
    objects.check(used=True)
    assert objects.create("a/b/c", b"1")
    assert not objects.create("a/b/c", b"2")
    assert objects.read("a/b/c") == b"1"
    assert objects.below("a") == ["b"]
    assert objects.below("none") == []
    assert objects.read("a/b") is None


def test_of_machines_that_race_all_get_the_same_and_who_looks_sees_nothing_by_half(
    tmp_path: Path, machine: Callable[..., subprocess.Popen[str]], store: str
) -> None:
    racers = {name: machine(name, count=3) for name in "abc"}
    wait_for(lambda: all((tmp_path / f"{name}-ready").exists() for name in racers))
    (tmp_path / "go").touch()
    looker, there = ArtifactStore(Home(tmp_path / "d", store)), Home(tmp_path / "d", store)
    expected = sorted(f"{name}{number}" for name in racers for number in range(3))
    seen, fetched = list[str](), set[str]()
    deadline = time.monotonic() + 120
    while seen != expected:
        assert time.monotonic() < deadline, seen
        seen = runs_of(there)
        for run_id in {*seen} - fetched:
            fetched.add(run_id)
            find_run(there, run_id)
            assert (run_folder(there, run_id) / "config.yaml").read_text() == run_id
        for number in range(3):
            ref = looker.find("kind", str(number))
            if ref is not None:
                texts = {path.read_text() for path in looker.open(ref).glob("*.txt")}
                assert texts == {looker.facts(ref)["by"]}
    digests = [racer.communicate(timeout=60)[0].split() for racer in racers.values()]
    assert [racer.returncode for racer in racers.values()] == [0, 0, 0]
    assert len(digests[0]) == 3 and digests[0] == digests[1] == digests[2]


def runs_of(home: Home) -> list[str]:
    from storage.runs.sharing import pull

    pull(home)
    return sorted(row["run_id"] for row in read_rows(home, "runs"))


def test_a_machine_that_dies_leaves_nothing_to_see_and_another_makes_it(
    tmp_path: Path, machine: Callable[..., subprocess.Popen[str]], store: str
) -> None:
    (tmp_path / "go").touch()
    dying = machine("a", 60)
    wait_for((tmp_path / "a-begun").exists)
    dying.send_signal(signal.SIGKILL)
    dying.wait()
    there = ArtifactStore(Home(tmp_path / "c", store))
    assert there.find("kind", "0") is None
    digest = machine("b").communicate(timeout=60)[0].strip()
    found = there.find("kind", "0")
    assert found is not None
    assert found.digest == digest


def test_what_is_damaged_there_is_named_and_mended_by_who_makes_it_again(
    tmp_path: Path, store: str
) -> None:
    ref = ArtifactStore(Home(tmp_path / "a", store)).make("kind", "key", writing)
    Objects(store).write(f"artifacts/kind/key/{ref.digest}/a.txt", b"damaged")
    there = ArtifactStore(Home(tmp_path / "b", store))
    with pytest.raises(DamagedArtifactError, match="a.txt does not have its recorded sha256"):
        there.open(ref)
    mended = there.make("kind", "key", writing)
    assert (ArtifactStore(Home(tmp_path / "c", store)).open(mended) / "a.txt").read_text() == "a"


def test_large_files_go_there_and_come_back(tmp_path: Path, store: str) -> None:
    ref = ArtifactStore(Home(tmp_path / "a", store)).make("kind", "key", writing)
    other = ArtifactStore(Home(tmp_path / "b", store))
    assert other.make("kind", "key", never) == ref
    assert (other.open(ref) / "large.bin").stat().st_size == 30_000_000


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://no-such-bucket/x", "bucket does not exist"),
        (f"s3://{BUCKET}/closed/x", "AccessDenied"),
        (f"s3://{BUCKET}/forbidden/x", "SignatureDoesNotMatch"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_computed(
    tmp_path: Path, s3: str, address: str, said: str
) -> None:
    with pytest.raises(StoreUnavailableError, match=f"(?s){address}.*{said}.*AWS_ACCESS_KEY_ID"):
        prepare_home(Home(tmp_path, address))


def test_a_server_that_overwrites_what_it_should_not_is_refused(tmp_path: Path, s3: str) -> None:
    with pytest.raises(StorageError, match="conditional writes"):
        prepare_home(Home(tmp_path, f"{s3}/careless/x"))


@pytest.mark.parametrize("profiles", [False, True])
def test_credentials_come_from_a_profile_too_and_are_missed_by_name(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, profiles: bool
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    if profiles:
        file.write_text("[lab]\naws_access_key_id = test\naws_secret_access_key = test\n")
        monkeypatch.setenv("AWS_PROFILE", "lab")
        prepare_home(Home(tmp_path, f"{s3}/profile"))
        return
    with pytest.raises(StoreUnavailableError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        prepare_home(Home(tmp_path, f"{s3}/other"))


@pytest.mark.usefixtures("prefect_server", "unrendered")
def test_a_second_machine_makes_nothing_of_what_the_first_one_did(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.experiment import experiment
    from real_tasks.experiment.yaml_files import load_config
    from real_tasks.tasks.reports import write_report

    config, store = load_config(None, SMALL), f"{s3}/second"
    monkeypatch.setenv("REAL_STORE", store)
    monkeypatch.setenv("REAL_HOME", str(tmp_path / "a"))
    first = experiment(config)
    made = made_in(store)
    assert sum(made.values()) > 10

    monkeypatch.setenv("REAL_HOME", str(tmp_path / "b"))
    second = experiment(config)
    assert made_in(store) == made
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


def made_in(store: str) -> dict[str, int]:
    """Numbers of artifacts, by kind, runs left out."""
    kinds = set(Objects(store).below("artifacts")) - {"run"}
    return {kind: len(Objects(store).below(f"artifacts/{kind}")) for kind in kinds}


def scores(home: Home, run_id: str) -> list[dict[str, Any]]:
    query = "SELECT * EXCLUDE (run_id) FROM module_scores WHERE run_id = $run_id ORDER BY ALL"
    found: list[dict[str, Any]] = (
        Catalog(home).query(query, parameters={"run_id": run_id}).to_pylist()
    )
    assert found
    return found
