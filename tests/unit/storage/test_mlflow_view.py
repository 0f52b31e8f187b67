import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str, str, str]:
    """A parent with one metric, a child with a curve, a run without metrics that still runs."""
    home = Home(tmp_path_factory.mktemp("home"))
    tracker = Tracker(home)
    parent = tracker.start_run("e", "parent", {"a": 1}, {"run_id": "r1"})
    curve = {"validation/kl": [(1, 0.5), (2, 0.25)], "test/mc1": float("nan")}
    child = tracker.child_run(parent, "real", {}, curve, {"run_id": "r1"})
    tracker.log_metrics(parent, {"test/mc1": 0.75})
    tracker.finish(parent, "failed")
    other = tracker.start_run("e", "other", {})
    return home, parent, child, other


def rows(home: Home, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in Catalog(home).query(sql).to_pylist()]


def test_a_row_is_a_run_and_the_last_value_of_a_metric(
    recorded: tuple[Home, str, str, str],
) -> None:
    home, parent, child, other = recorded
    columns = "mlflow_run_id, run_id, parent_run_id, name, status, metric, value"
    found = rows(home, f"SELECT {columns} FROM mlflow_runs")
    assert set(found) == {
        (parent, "r1", None, "parent", "failed", "test/mc1", 0.75),
        (child, "r1", parent, "real", "completed", "test/mc1", None),
        (child, "r1", parent, "real", "completed", "validation/kl", 0.25),
        (other, None, None, "other", "running", None, None),
    }


def test_times_are_mlflows(recorded: tuple[Home, str, str, str]) -> None:
    home, parent, _, other = recorded
    run = Tracker(home)._client.get_run(parent)
    sql = "SELECT epoch_ms(started_at), epoch_ms(finished_at) FROM mlflow_runs WHERE name = '{}'"
    assert rows(home, sql.format("parent")) == [(run.info.start_time, run.info.end_time)]
    assert rows(home, sql.format("other"))[0][1] is None


def test_runs_that_were_deleted_are_not_shown(recorded: tuple[Home, str, str, str]) -> None:
    home = recorded[0]
    tracker = Tracker(home)
    gone = tracker.start_run("e", "gone", {})
    tracker._client.delete_run(gone)
    assert rows(home, "SELECT name FROM mlflow_runs WHERE name = 'gone'") == []


def test_the_named_query_shows_a_runs_metrics(recorded: tuple[Home, str, str, str]) -> None:
    from storage.sql.queries import parse_call

    query, values = parse_call(["@mlflow-metrics", "run_id=r1"])
    found = Catalog(recorded[0]).query(query.sql, parameters=values).to_pylist()
    assert [(row["name"], row["metric"]) for row in found] == [
        ("parent", "test/mc1"),
        ("real", "test/mc1"),
    ]


def test_a_home_without_a_record_has_no_rows(tmp_path: Path) -> None:
    assert rows(Home(tmp_path), "FROM mlflow_runs") == []
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_not_mlflows_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.mlflow.mkdir()
    sqlite3.connect(home.mlflow / "mlflow.db").close()
    (home.mlflow / "mlflow.db").write_bytes(b"no database, but long enough for one" * 30)
    with pytest.raises(StorageError, match=r"mlflow\.db cannot be read as MLflow's database"):
        rows(home, "FROM mlflow_runs")


def test_it_is_readable_while_it_is_written_to(recorded: tuple[Home, str, str, str]) -> None:
    home, parent, _, _ = recorded

    def write() -> None:
        for step in range(20):
            Tracker(home).log_metrics(parent, {"step": [(step, float(step))]})

    writer: Callable[[], None] = write
    thread = threading.Thread(target=writer)
    thread.start()
    seen = [-1.0]
    while thread.is_alive():
        found = rows(home, "SELECT value FROM mlflow_runs WHERE metric = 'step'")
        seen += [float(str(value)) for (value,) in found]
    thread.join()
    assert seen == sorted(seen)
    assert rows(home, "SELECT value FROM mlflow_runs WHERE metric = 'step'") == [(19.0,)]
