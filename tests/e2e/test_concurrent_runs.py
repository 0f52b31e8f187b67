"""Processes that write runs while others query, with `real sql`, plain DuckDB and pandas."""

import json
import multiprocessing
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.paths import Home
from storage.runs.run import write_run
from storage.sql.catalog import Catalog
from storage.tables.parquet import read_rows, write_table
from storage.upkeep.compaction import compact

RUNS, MODULES = 25, 40
START = datetime(2026, 1, 1, tzinfo=UTC)


def write_runs(root: str, writer: str) -> None:
    """Write runs as a flow does: the row, its tables, the row again."""
    home = Home(Path(root))
    for number in range(RUNS):
        row: dict[str, Any] = {
            "run_id": f"{writer}-{number:02d}",
            "flow": "experiment",
            "started_at": START,
            "finished_at": None,
            "status": "running",
            "model": "m",
            "model_id": "0",
            "behaviour": "b",
            "seed": number,
            "config_digest": "d",
            "git_commit": None,
            "mlflow_run_id": None,
        }
        write_run(home, row)
        write_table(home, "module_scores", row["run_id"], scores(row["run_id"], number))
        write_run(home, row | {"status": "completed", "finished_at": START + timedelta(hours=1)})


def scores(run_id: str, number: int) -> list[dict[str, Any]]:
    shared = dict.fromkeys(
        ("roc_auc", "roc_auc_low", "roc_auc_high", "aupr", "f1", "perplexity", "collapsed")
    )
    return [
        {
            **shared,
            "run_id": run_id,
            "model": "m",
            "model_id": "0",
            "behaviour": "b",
            "localizer": "real",
            "protocol": "cross_fit",
            "fold": 0,
            "seed": 0,
            "module_kind": "head",
            "layer": 0,
            "head": head,
            "reconstruction_loss": None,
            "rank": head + 1,
            "score": float(number),
        }
        for head in range(MODULES)
    ]


CHECK = """
SELECT run_id, any_value(status) AS status, count(score) AS n, count(DISTINCT head) AS heads,
       min(score) AS low, max(score) AS high, any_value(runs.seed) AS number
FROM runs LEFT JOIN module_scores USING (run_id) GROUP BY run_id
"""


def check(root: str, answers: Any, stop: Any) -> None:
    """Query again and again: a run's scores are all there or none, and what was there stays."""
    catalog, seen, queries = Catalog(Home(Path(root))), set[str](), 0
    while not stop.is_set():
        rows = catalog.query(CHECK).to_pylist()
        for row in rows:
            assert row["n"] in (0, MODULES), row
            assert row["heads"] == row["n"], row
            assert row["n"] == 0 or row["low"] == row["high"] == row["number"], row
        found = {row["run_id"] for row in rows}
        assert seen <= found
        seen, queries = found, queries + 1
    answers.put(queries)


def test_nothing_is_lost_while_two_processes_write_and_two_read(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    spawn = multiprocessing.get_context("spawn")
    answers, stop = spawn.Queue(), spawn.Event()
    readers = [
        spawn.Process(target=check, args=(str(home.root), answers, stop), daemon=True)
        for _ in range(2)
    ]
    writers = [
        spawn.Process(target=write_runs, args=(str(home.root), name), daemon=True) for name in "ab"
    ]
    for process in (*readers, *writers):
        process.start()
    for writer in writers:
        writer.join()
    stop.set()
    for reader in readers:
        reader.join()
    assert [process.exitcode for process in (*readers, *writers)] == [0] * 4
    assert answers.get() + answers.get() >= 2
    assert len(read_rows(home, "module_scores")) == 2 * RUNS * MODULES
    assert {row["status"] for row in read_rows(home, "runs")} == {"completed"}
    rows = Catalog(home).query(CHECK).to_pylist()
    assert len(rows) == 2 * RUNS
    assert {row["n"] for row in rows} == {MODULES}


DUCKDB = """
import duckdb
scores = "read_parquet('.real/tables/module_scores/*.parquet', union_by_name = true)"
print(duckdb.sql(f"SELECT model, head, avg(score) AS score FROM {scores} GROUP BY ALL"))
"""
PANDAS = """
import pandas
scores = pandas.read_parquet(".real/tables/module_scores")
print(scores.groupby(["model", "head"])["score"].mean())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home in it: one writer's runs merged, another's not."""
    folder = tmp_path_factory.mktemp("project")
    home = Home(folder / ".real")
    write_runs(str(home.root), "a")
    assert compact(home, timedelta(0), min_parts=2, pause_seconds=0.0)
    write_runs(str(home.root), "b")
    return folder


def run_in(folder: Path, *command: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "REAL_HOME"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("lines", "sum_of"),
    [
        (DUCKDB, "duckdb.sql(f'SELECT count(*), sum(score) FROM {scores}').fetchall()[0]"),
        (PANDAS, "(len(scores), scores['score'].sum())"),
    ],
)
def test_plain_readers_find_the_same_rows_in_three_lines(
    folder: Path, lines: str, sum_of: str
) -> None:
    text = run_in(folder, "-c", f"{lines}\nprint(*{sum_of})")
    expected = 2 * MODULES * sum(range(RUNS))
    assert text.splitlines()[-1].split() == [str(2 * RUNS * MODULES), f"{expected:.1f}"]
    assert "12.0" in text


def test_another_process_asks_with_the_command_line(folder: Path) -> None:
    command = ("-m", "flows.cli", "sql", "@top-heads", "model=m", "k=1", "--format", "json")
    (row,) = json.loads(run_in(folder, *command))
    assert (row["layer"], row["head"], row["n"]) == (0, 0, 2 * RUNS)
    assert row["score"] == sum(range(RUNS)) / RUNS
