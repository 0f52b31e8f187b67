"""Where MLflow's record goes: into the home, or where REAL_MLFLOW_URI says."""

from pathlib import Path

import pytest

from storage.paths import Home
from storage.tracking.tracker import EXPERIMENT, Tracker


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("REAL_MLFLOW_URI", raising=False)
    return Home(tmp_path / "real")


def test_without_the_variable_the_record_is_in_the_home(real: Home) -> None:
    assert real.owns_mlflow
    assert real.mlflow_uri == f"sqlite:///{real.root}/mlflow/mlflow.db"
    assert real.mlflow_place == f"{real.root}/mlflow/mlflow.db"


def test_mlflow_s_own_variable_which_it_sets_itself_is_not_looked_at(
    real: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere.db")
    assert real.owns_mlflow


def test_a_run_is_recorded_where_the_variable_says(
    real: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("REAL_MLFLOW_URI", other)
    assert not real.owns_mlflow and real.mlflow_uri == other
    run_id = Tracker(real).start_run("demo", "a run", {"alpha": 1.0})
    from mlflow import MlflowClient

    assert MlflowClient(other).get_run(run_id).data.params == {"alpha": "1.0"}
    assert (tmp_path / "other.db").is_file()
    assert not (real.mlflow / "mlflow.db").exists()


def test_what_crashed_runs_left_going_elsewhere_is_ended_and_nothing_else(
    real: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("REAL_MLFLOW_URI", other)
    tracker = Tracker(real)
    tags = ({"run_id": "dead"}, {"run_id": "dead"}, {"run_id": "of another home"}, {})
    made = [tracker.start_run(EXPERIMENT, f"run {i}", {}, tag) for i, tag in enumerate(tags)]
    tracker.end_crashed({"dead", "long gone"})
    from mlflow import MlflowClient

    found = [MlflowClient(other).get_run(run_id).info.status for run_id in made]
    assert found == ["KILLED", "KILLED", "RUNNING", "RUNNING"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (
            "postgresql+psycopg2://real:p@ss:w@db:5432/mlflow",
            "postgresql+psycopg2://real@db:5432/mlflow",
        ),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:////a/b@c:d.db", "/a/b@c:d.db"),
    ],
)
def test_people_are_shown_no_password(
    address: str, shown: str, real: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL_MLFLOW_URI", address)
    assert real.mlflow_place == shown


def test_a_server_decides_itself_where_artifacts_go(
    real: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Tracker(real)._artifacts() == f"file://{real.root}/mlflow/artifacts"
    monkeypatch.setenv("REAL_MLFLOW_URI", "http://127.0.0.1:9")
    assert Tracker(real)._artifacts() is None
