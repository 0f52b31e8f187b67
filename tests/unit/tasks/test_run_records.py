"""How a run that does not complete is recorded: in the tables, and in MLflow."""

import sqlite3
from pathlib import Path

import pytest

from real_tasks.tasks.records.run import running
from real_tasks.tasks.records.tracked import start_tracking
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from storage.artifacts.store import prepare_home
from storage.paths import Home
from storage.runs.run import dead_runs
from storage.tables.parquet import read_rows


class Tracking:
    """What starts a run's record in MLflow, done at once."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def result(self, timeout: float | None = None) -> str:
        assert timeout is not None, "an end waits for nobody"
        return self._run_id


@pytest.mark.parametrize(
    ("error", "status", "in_mlflow"),
    [(RuntimeError, "failed", "FAILED"), (SystemExit, "crashed", "KILLED")],
)
def test_a_run_that_an_error_or_a_signal_ends_has_ended_wherever_it_is_recorded(
    home: Path, error: type[BaseException], status: str, in_mlflow: str
) -> None:
    prepare_home(Home(home))
    config = ExperimentConfig()
    with pytest.raises(error), running("experiment", config, "any") as early:
        raise error
    late = start_tracking.fn(early.row | {"status": "running"}, config)
    with pytest.raises(error), running("experiment", config, "any") as run:
        run.tracking = Tracking(start_tracking.fn(dict(run.row), config))  # type: ignore[assignment]
        raise error
    found = {row["run_id"]: row for row in read_rows(Home(home), "runs")}
    assert [row["status"] for row in found.values()] == [status, status]
    assert found[early.run_id]["mlflow_run_id"] is None
    ids = {late, found[run.run_id]["mlflow_run_id"]}
    connection = sqlite3.connect(home / "mlflow" / "mlflow.db")
    states = dict(connection.execute("SELECT run_uuid, status FROM runs"))
    connection.close()
    assert states == dict.fromkeys(ids, in_mlflow)
    assert dead_runs(Home(home)) == []
