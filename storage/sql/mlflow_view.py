"""MLflow's runs as rows for SQL: read from the home's MLflow database, never written here."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storage.errors import StorageError
from storage.paths import Home
from storage.tables.columns import RUN_ID, TEXT, TIME, Column, declare, number
from storage.tables.rows import conform

STATES = {
    "SCHEDULED": "scheduled",
    "RUNNING": "running",
    "FINISHED": "completed",
    "FAILED": "failed",
    "KILLED": "crashed",
}

MLFLOW_RUNS = declare(
    "mlflow_runs",
    "one row per run in the home's MLflow database and metric, its last value",
    (
        Column("mlflow_run_id", TEXT, "id of the run in MLflow"),
        RUN_ID.or_null("if another program made it"),
        Column("parent_run_id", TEXT, "id in MLflow of the run above").or_null("at the top"),
        Column("name", TEXT, "name of the run in MLflow: a method's, below an experiment's"),
        Column("status", TEXT, "state of the run in MLflow", values=tuple(STATES.values())),
        Column("started_at", TIME, "start, UTC"),
        Column("finished_at", TIME, "end, UTC").or_null("while it runs"),
        Column("metric", TEXT, "test/mc1, validation/kl, ...").or_null("if it has no metrics"),
        number("value", "the metric, in its unit; NULL if it has no metrics, or for NaN", True),
    ),
)

_SQL = """
SELECT r.run_uuid, ours.value, parent.value, r.name, r.status, r.start_time, r.end_time,
       m.key, CASE WHEN m.is_nan THEN NULL ELSE m.value END
FROM runs AS r
LEFT JOIN tags AS ours ON ours.run_uuid = r.run_uuid AND ours.key = 'run_id'
LEFT JOIN tags AS parent ON parent.run_uuid = r.run_uuid AND parent.key = 'mlflow.parentRunId'
LEFT JOIN latest_metrics AS m ON m.run_uuid = r.run_uuid
WHERE r.lifecycle_stage = 'active'
ORDER BY r.start_time, r.run_uuid, m.key
"""
_WAIT_SECONDS = 30.0


def mlflow_runs(home: Home) -> pa.Table:
    """Return the rows of the view `mlflow_runs`; none where nothing was recorded in the home.

    Raises:
        StorageError: the database cannot be read, or is of a version of MLflow that is not known.
    """
    rows = (dict(zip(MLFLOW_RUNS.schema.names, found, strict=True)) for found in _found(home))
    return conform(MLFLOW_RUNS, [_in_our_words(row) for row in rows])


def _found(home: Home) -> list[tuple[Any, ...]]:
    database = home.mlflow / "mlflow.db"
    if not database.is_file():
        return []
    address = f"{database.as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS)) as connection:
            return connection.execute(_SQL).fetchall()
    except sqlite3.Error as error:
        raise StorageError(
            f"{database} cannot be read as MLflow's database ({error}); `mlflow db upgrade "
            f"{home.mlflow_uri}` brings one of an older MLflow up to date"
        ) from error


def _in_our_words(row: dict[str, Any]) -> dict[str, Any]:
    times = {
        name: None if row[name] is None else datetime.fromtimestamp(row[name] / 1000, UTC)
        for name in ("started_at", "finished_at")
    }
    status = STATES.get(row["status"], row["status"])
    return row | times | {"status": status, "name": row["name"] or ""}
