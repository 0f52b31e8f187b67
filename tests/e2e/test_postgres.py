"""The demo, small, with Prefect's server and MLflow's record on a real Postgres."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.paths import Home
from storage.tracking.tracker import Tracker
from tests.flows.test_experiment import SMALL

pytestmark = pytest.mark.drill

ROOT = Path(__file__).parents[2]
PASSWORD = "s3cret-of-the-test"


@dataclass(frozen=True)
class Database:
    """A running Postgres server, with the databases ``prefect`` and ``mlflow``."""

    port: int

    def uri(self, driver: str, name: str) -> str:
        return f"postgresql+{driver}://real:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def query(self, name: str, sql: str) -> list[Any]:
        psycopg2 = pytest.importorskip("psycopg2")
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="real", password=PASSWORD, dbname=name
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_postgres(*command: str) -> list[str]:
    """Return a command as it has to be run: Postgres refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else [*command]


def tool(name: str) -> str:
    """Return a program of Postgres; Debian keeps them out of the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        pytest.skip(f"Postgres is not installed: there is no {name}")
    return found


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A Postgres of the test's own, which asks for a password."""
    pytest.importorskip("psycopg2", reason="the extra postgres is not installed")
    initdb, pg_ctl = tool("initdb"), tool("pg_ctl")
    # Not below pytest's folder, which the user postgres may not enter.
    with tempfile.TemporaryDirectory(prefix="real-postgres-", dir="/tmp") as folder:
        data, log, found = Path(folder) / "data", Path(folder) / "log", Database(free_port())
        (Path(folder) / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for place in (Path(folder), Path(folder) / "password"):
                shutil.chown(place, "postgres")
        made = [initdb, "-D", str(data), "-U", "real", "--pwfile", f"{folder}/password"]
        subprocess.run(
            as_postgres(*made, "-A", "scram-sha-256", "--no-sync"), check=True, capture_output=True
        )
        options = f"-p {found.port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        start = [pg_ctl, "-D", str(data), "-w", "-o", options, "-l", str(log), "start"]
        subprocess.run(as_postgres(*start), check=True, stdout=subprocess.DEVNULL)
        try:
            for name in ("prefect", "mlflow"):
                found.query("postgres", f"CREATE DATABASE {name}")
            yield found
        finally:
            stop = [pg_ctl, "-D", str(data), "-m", "immediate", "stop"]
            subprocess.run(as_postgres(*stop), check=True, capture_output=True)


@contextmanager
def served(folder: Path, database: Database) -> Iterator[str]:
    """Run a Prefect server on Postgres and give the address of its API."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.uri("asyncpg", "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with (folder / "prefect.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, stdout=log, stderr=log
        )
        try:
            for _ in range(240):
                assert server.poll() is None, (folder / "prefect.log").read_text()
                if healthy(f"{api}/health"):
                    break
                time.sleep(0.5)
            yield api
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class Ran:
    """What a run left: its home, what the command said, and Prefect's flow runs."""

    home: Path
    said: str
    flow_runs: list[dict[str, Any]]
    uri: str


@pytest.fixture(scope="module")
def ran(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The small demo, run once."""
    folder = tmp_path_factory.mktemp("postgres")
    uri = database.uri("psycopg2", "mlflow")
    settings = [part for change in SMALL for part in ("--set", change)]
    with served(folder, database) as api:
        environment = os.environ | {
            "PREFECT_API_URL": api,
            "REAL_MLFLOW_URI": uri,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "300",
        }
        command = [sys.executable, "-m", "flows.cli", "run", "--home", str(folder / "home")]
        done = subprocess.run(
            [*command, *settings], env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answer = httpx.post(f"{api}/flow_runs/filter", json={}, timeout=30)
    return Ran(folder / "home", done.stdout + done.stderr, answer.json(), uri)


def test_prefect_keeps_the_flow_run_and_its_tasks_in_postgres(ran: Ran, database: Database) -> None:
    (run,) = ran.flow_runs
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Completed")
    assert database.query("prefect", "SELECT state_type FROM flow_run") == [("COMPLETED",)]
    states = database.query("prefect", "SELECT DISTINCT state_type FROM task_run")
    assert states == [("COMPLETED",)]
    (count,) = database.query("prefect", "SELECT count(*) FROM task_run")[0]
    assert count > 20


def test_mlflow_s_record_is_in_postgres_and_not_in_the_home(ran: Ran, database: Database) -> None:
    runs = database.query("mlflow", "SELECT name, status FROM runs")
    assert {status for _, status in runs} == {"FINISHED"}
    assert {"unsteered", "real", "random", "all"} < {name for name, _ in runs}
    (count,) = database.query("mlflow", "SELECT count(*) FROM latest_metrics")[0]
    assert count > 10
    assert not (ran.home / "mlflow" / "mlflow.db").exists()


def test_the_tracker_finds_the_record_and_its_artifacts(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL_MLFLOW_URI", ran.uri)
    home = Home(ran.home)
    (row,) = [json.loads(path.read_text()) for path in ran.home.glob("runs/*/run.json")][:1]
    client = Tracker(home)._client
    (experiment,) = client.search_experiments(filter_string="name = 'real-steering'")
    parents = client.search_runs(
        [experiment.experiment_id], "tags.flow = 'experiment'", order_by=["start_time"]
    )
    parent = next(run for run in parents if "mlflow.parentRunId" not in run.data.tags)
    assert {found.path for found in client.list_artifacts(parent.info.run_id)} >= {"figures"}
    assert row["stages"]


def test_the_password_is_nowhere_that_people_look(ran: Ran) -> None:
    assert PASSWORD not in ran.said
    assert re.search(r"MLflow\s+postgresql\+psycopg2://real@127\.0\.0\.1:\d+/mlflow", ran.said)
    shown = [path for path in ran.home.rglob("*") if path.suffix in (".html", ".json", ".yaml")]
    assert any(path.name == "report.html" for path in shown)
    for path in shown:
        assert PASSWORD not in path.read_text(), path
