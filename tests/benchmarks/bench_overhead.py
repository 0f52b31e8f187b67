"""Prefect's and MLflow's share of a cold experiment, beyond the start of the in-process server.

The same experiment runs twice on two new homes, after the same embedded model was made for both: by
the flow, and by a plain thread pool that calls the same stages without Prefect or any record.
Run as ``python -m tests.benchmarks.bench_overhead``.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from flows.terminal.environment import use_home
from storage.artifacts.store import prepare_home


def main() -> None:
    """Measure both, print the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    assignments = parser.parse_args().assignments
    with tempfile.TemporaryDirectory() as folder:
        prepare_home(use_home(Path(folder) / "start"))
        server_start = _start_server()
        config = _config(assignments)
        _make_model(config)
        flow = _timed(Path(folder) / "flow", config, _with_prefect)
        plain = _timed(Path(folder) / "plain", config, _without_prefect)
    share = 1 - plain / flow
    sys.stdout.write(
        f"in-process server: {server_start:.1f} s to start (not counted below)\n"
        f"experiment by the flow, with MLflow: {flow:.1f} s\n"
        f"same stages in a plain thread pool:  {plain:.1f} s\n"
        f"share of Prefect and MLflow: {100 * share:.1f} % (the embedded model's training, which "
        "lengthens both alike, is left out)\n"
    )


def _config(assignments: list[str]) -> Any:
    from real_tasks.experiment.yaml_files import load_config

    return load_config(None, ["model.params.steps=200", "seeds=[0]", *assignments])


def _start_server() -> float:
    start = time.perf_counter()
    from prefect import flow

    @flow(name="nothing")
    def nothing() -> None:
        """Start what the first flow of a process starts."""

    nothing()
    return time.perf_counter() - start


def _make_model(config: Any) -> None:
    from real_tasks.tasks.stages import checkpoint

    checkpoint.checkpoint(
        model=config.model,
        fingerprint=checkpoint.fingerprint_of(config.model),
        execution=config.execution,
    )


def _timed(home: Path, config: Any, run: Any) -> float:
    made = Path(os.environ["REAL_HOME"]) / "artifacts" / "checkpoint"
    shutil.copytree(made, home / "artifacts" / "checkpoint")
    os.environ["REAL_HOME"] = str(home)
    start = time.perf_counter()
    run(config)
    return time.perf_counter() - start


def _with_prefect(config: Any) -> None:
    from flows.commands.launch import launch

    launch(config)


def _without_prefect(config: Any) -> None:
    from flows import experiment, pipeline
    from real_tasks.tasks.cache.machine import workers
    from real_tasks.tasks.records import experiment_report
    from real_tasks.tasks.records import run as records

    def fan_out(run: Any, stage: Any, shards: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        with ThreadPoolExecutor(workers(config.execution)) as pool:
            return list(pool.map(lambda shard: stage.without_prefect(**shard[1]), shards))

    @contextmanager
    def nothing(*_: Any, **__: Any) -> Any:
        yield mock.Mock(config=config, run_id="plain", stages=[], row={"git_commit": None})

    def alone(run: Any, stage: Any, **inputs: Any) -> Any:
        return fan_out(run, stage, [("alone", inputs)])[0]

    with (
        mock.patch.object(pipeline, "fan_out", fan_out),
        mock.patch.object(pipeline, "alone", alone),
        mock.patch.object(experiment, "alone", alone),
        mock.patch.object(experiment, "running", nothing),
        mock.patch.object(experiment, "publish", lambda *_: None),
        mock.patch.object(records, "start_tracking", mock.MagicMock()),
        mock.patch.object(experiment_report, "report", mock.MagicMock()),
    ):
        experiment.experiment.fn(config)


if __name__ == "__main__":
    main()
