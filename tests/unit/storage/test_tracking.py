import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from storage.paths import Home
from storage.tracking.tracker import GIT_COMMIT_TAG, Scalar, Tracker, TrackingError

REPOSITORY = Path(__file__).parents[3]
INITIALISE = """
import sys
from pathlib import Path
from storage.paths import Home
from storage.tracking.tracker import Tracker
tracker = Tracker(Home(Path(sys.argv[1])))
assert "mlflow" not in sys.modules
tracker.initialise()
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str, list[Path]]:
    """A database made by a process of its own, what that said, and what it left where it ran."""
    home = Home(tmp_path_factory.mktemp("home") / "real")
    (home.mlflow / ".new-of-a-killed-run").mkdir(parents=True)
    elsewhere = tmp_path_factory.mktemp('somebody\'s "folder" :x')
    done = subprocess.run(
        [sys.executable, "-c", INITIALISE, str(home.root)],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return home, done.stdout, list(elsewhere.iterdir())


@pytest.fixture
def home(
    fresh: tuple[Home, str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Home]:
    """The home of ``fresh``, used from a working folder that must stay empty."""
    elsewhere = tmp_path / "working-folder"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    yield fresh[0]
    assert not list(elsewhere.iterdir())


@pytest.fixture
def tracker(home: Home) -> Tracker:
    return Tracker(home)


@pytest.fixture
def client(home: Home) -> MlflowClient:
    return MlflowClient(home.mlflow_uri)


@pytest.fixture
def run_id(tracker: Tracker) -> str:
    return tracker.start_run("demo", "a run", {})


def history(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))


def children(client: MlflowClient, parent: Run) -> list[Run]:
    return list(
        client.search_runs(
            [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
        )
    )


def test_a_run_has_its_name_parameters_and_tags(tracker: Tracker, client: MlflowClient) -> None:
    params: dict[str, Scalar] = {
        "localizer.name": "real",
        "data.n_folds": 2,
        "alpha": 1.8,
        "flag": True,
        "no": None,
    }
    run_id = tracker.start_run("demo", "first", params, {GIT_COMMIT_TAG: "abc"})
    run = client.get_run(run_id)
    assert run.info.run_name == "first"
    assert run.info.status == "RUNNING"
    assert run.data.tags[GIT_COMMIT_TAG] == "abc"
    assert run.data.params == {
        "localizer.name": "real",
        "data.n_folds": "2",
        "alpha": "1.8",
        "flag": "True",
        "no": "None",
    }


def test_children_are_found_under_their_parent(tracker: Tracker, client: MlflowClient) -> None:
    parent = tracker.start_run("demo", "parent", {})
    names = ["real", "iti", "random"]
    for name in names:
        tracker.child_run(parent, name, {"method": name}, {"mc1": 0.5}, {"method": name})
    found = children(client, client.get_run(parent))
    assert sorted(run.info.run_name for run in found) == sorted(names)
    for run in found:
        assert run.data.params == {"method": run.info.run_name}
        assert run.data.tags["method"] == run.info.run_name
        assert run.data.metrics == {"mc1": 0.5}
        assert run.info.status == "FINISHED"


def test_runs_of_one_experiment_are_together(tracker: Tracker, client: MlflowClient) -> None:
    runs = [client.get_run(tracker.start_run(name, "r", {})) for name in ("x/1", "x/1", "y")]
    same, again, other = (run.info.experiment_id for run in runs)
    assert same == again != other


def test_a_metric_is_one_value_or_a_curve_over_steps(
    tracker: Tracker, client: MlflowClient, run_id: str
) -> None:
    curve = [(600, 0.4), (1200, 0.7), (4900, 0.9)]
    tracker.log_metrics(run_id, {"kl": 0.02, "folds": 2, "mc1_over_alpha": curve})
    assert history(client, run_id, "kl") == [(0, 0.02)]
    assert history(client, run_id, "folds") == [(0, 2.0)]
    assert history(client, run_id, "mc1_over_alpha") == curve


def test_more_entries_than_one_call_takes_are_all_kept(
    tracker: Tracker, client: MlflowClient
) -> None:
    run_id = tracker.start_run("demo", "large", {f"p{index}": index for index in range(250)})
    curve = [(step, step / 7) for step in range(1100)]
    tracker.log_metrics(run_id, {"long": curve} | {f"m{index}": index for index in range(1200)})
    run = client.get_run(run_id)
    assert run.data.params == {f"p{index}": str(index) for index in range(250)}
    assert history(client, run_id, "long") == curve
    assert all(run.data.metrics[f"m{index}"] == index for index in range(1200))


def test_the_whole_text_of_a_long_parameter_is_an_artifact(
    tracker: Tracker, client: MlflowClient, tmp_path: Path
) -> None:
    text = "0123456789" * 700
    run_id = tracker.start_run("demo", "long", {"data.questions": text, "short": "x" * 6000})
    params = client.get_run(run_id).data.params
    assert params["data.questions"] == text[:5999] + "…"
    assert params["short"] == "x" * 6000
    copy = client.download_artifacts(run_id, "params/data.questions.txt", str(tmp_path))
    assert Path(copy).read_text() == text


def test_files_and_folders_are_read_back(
    tracker: Tracker, client: MlflowClient, run_id: str, tmp_path: Path
) -> None:
    table, spec = tmp_path / "scores.parquet", tmp_path / "real"
    table.write_bytes(b"scores")
    (spec / "deep").mkdir(parents=True)
    (spec / "deep" / "spec.json").write_text("{}")
    tracker.log_artifacts(run_id, [table])
    tracker.log_artifacts(run_id, [spec, table], "steering")
    target = tmp_path / "back"
    target.mkdir()
    back = Path(client.download_artifacts(run_id, "", str(target)))
    found = sorted(str(path.relative_to(back)) for path in back.rglob("*") if path.is_file())
    assert found == ["scores.parquet", "steering/real/deep/spec.json", "steering/scores.parquet"]
    assert (back / "scores.parquet").read_bytes() == b"scores"


def test_artifacts_lie_under_the_home(
    tracker: Tracker, home: Home, run_id: str, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("a note")
    tracker.log_artifacts(run_id, [tmp_path / "note.txt"])
    assert [path.read_text() for path in home.mlflow.rglob(f"{run_id}/**/note.txt")] == ["a note"]


def test_a_file_that_is_not_there_is_named(tracker: Tracker, run_id: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"missing\.png is to be recorded"):
        tracker.log_artifacts(run_id, [tmp_path / "missing.png"])


@pytest.mark.parametrize(
    ("status", "state"),
    [("completed", "FINISHED"), ("failed", "FAILED"), ("crashed", "KILLED")],
)
def test_a_run_ends_as_it_ended(
    tracker: Tracker, client: MlflowClient, run_id: str, status: str, state: str
) -> None:
    tracker.finish(run_id, status)
    run = client.get_run(run_id)
    assert run.info.status == state
    assert run.info.end_time is not None


def test_an_unknown_status_is_refused(tracker: Tracker, run_id: str) -> None:
    with pytest.raises(TrackingError, match="'done'; expected one of .*completed"):
        tracker.finish(run_id, "done")


def test_threads_may_record_at_once(tracker: Tracker, client: MlflowClient) -> None:
    parent = tracker.start_run("demo", "threads", {})

    def record(index: int) -> str:
        return tracker.child_run(parent, f"method-{index}", {"i": index}, {"mc1": index})

    with ThreadPoolExecutor(4) as threads:
        run_ids = list(threads.map(record, range(12)))
    assert [client.get_run(run_id).data.metrics["mc1"] for run_id in run_ids] == list(range(12))
    assert len(children(client, client.get_run(parent))) == 12


def test_a_second_initialisation_keeps_what_is_there(
    home: Home, tracker: Tracker, client: MlflowClient, run_id: str
) -> None:
    Tracker(home).initialise()
    assert client.get_run(run_id).info.run_name == "a run"


def test_a_fresh_database_is_made_without_a_word_and_without_traces_elsewhere(
    fresh: tuple[Home, str, list[Path]],
) -> None:
    home, said, left = fresh
    assert said == ""
    assert left == []
    assert not list(home.mlflow.glob(".new-*"))
