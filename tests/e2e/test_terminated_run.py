"""A run that `timeout`, a scheduler or `kill` ends: recorded, nothing left, and it goes on."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from storage.paths import Home
from tests.drill.homes import await_words, check_left, completed_run, ended, runs, start
from tests.terminal import RUN

pytestmark = [pytest.mark.timeout(600), pytest.mark.drill]

LONG = ("--set", "localizer.params.epochs=1000000")


def states(database: Path, query: str) -> list[str]:
    connection = sqlite3.connect(database)
    try:
        return [state for (state,) in connection.execute(query)]
    finally:
        connection.close()


def test_a_terminated_run_is_recorded_as_such_leaves_nothing_and_another_goes_on(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "machine" / "home")
    run = start(home, *RUN, *LONG, under=("setsid",))
    await_words(home, run, "run", "scores of modules")
    os.killpg(run.pid, signal.SIGTERM)  # its server of Prefect is told too, with others
    status, said = ended(home, run, "run")
    assert status == 143, said
    assert said.count("the same command goes on from there") == 1
    assert "Traceback" not in said and "Crash detected" not in said
    check_left(home)
    assert [run["status"] for run in runs(home)] == ["crashed"]
    assert states(home.prefect / "prefect.db", "SELECT state_type FROM flow_run") == ["CRASHED"]
    assert "RUNNING" not in states(home.mlflow / "mlflow.db", "SELECT status FROM runs")
    assert not list(home.artifacts.glob(".[!l]*")), "half-written artifacts"
    completed_run(home)
