"""Prefect's and MLflow's share of a cold experiment, beyond the start of the in-process server.

The same experiment runs twice on two new homes, after the same embedded model was made for both: by
the flow, and by a plain thread pool that calls the same stages without Prefect or any record.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from flows.terminal.environment import use_home
from storage.artifacts.store import prepare_home
from tests.benchmarks.bench_plan import SMALL
from tests.benchmarks.common import Options, Row


def rows(options: Options) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        home = use_home(Path(folder) / "start")
        prepare_home(home)
        start = time.perf_counter()
        from flows.running.own_server import serving

        with serving(home) as own:
            assert own is not None, "unset PREFECT_API_URL"
            own.wait()
            server_start = time.perf_counter() - start
            prepared = _prepared(options.sized((), SMALL))
            _make_model(prepared.config)
            flow = _timed(Path(folder) / "flow", prepared, _with_prefect)
            plain = _timed(Path(folder) / "plain", prepared, _without_prefect)
    what = f"experiment by Prefect and MLflow, after {server_start:.0f} s of the server's start, s"
    yield Row(what, flow, plain, "its stages in a pool of threads", short=True)


def _prepared(assignments: Sequence[str]) -> Any:
    from real_tasks.experiment.yaml_files import load_prepared

    return load_prepared(None, ["model.params.steps=200", "seeds=[0]", *assignments])


def _make_model(config: Any) -> None:
    from real_tasks.tasks.stages import checkpoint

    checkpoint.checkpoint(
        model=config.model,
        fingerprint=checkpoint.fingerprint_of(config.model),
        execution=config.execution,
    )


def _timed(home: Path, prepared: Any, run: Any) -> float:
    made = Path(os.environ["REAL_HOME"]) / "artifacts" / "checkpoint"
    shutil.copytree(made, home / "artifacts" / "checkpoint")
    os.environ["REAL_HOME"] = str(home)
    start = time.perf_counter()
    run(prepared)
    return time.perf_counter() - start


def _with_prefect(prepared: Any) -> None:
    from flows.commands.launch import launch

    launch(prepared)


def _without_prefect(prepared: Any) -> None:
    from flows import experiment, pipeline
    from real_tasks.tasks.cache.machine import workers
    from real_tasks.tasks.records import experiment_report, tracked

    def fan_out(
        run: Any, stage: Any, shards: Sequence[tuple[str, Mapping[str, Any]]], _shape: Any = None
    ) -> list[Any]:
        with ThreadPoolExecutor(workers(prepared.config.execution)) as pool:
            return list(pool.map(lambda shard: stage.without_prefect(**shard[1]), shards))

    @contextmanager
    def nothing(*_: Any, **__: Any) -> Any:
        yield mock.Mock(run_id="plain", stages=[], row={"git_commit": None})

    def alone(run: Any, stage: Any, **inputs: Any) -> Any:
        return fan_out(run, stage, [("alone", inputs)])[0]

    with (
        mock.patch.object(pipeline, "fan_out", fan_out),
        mock.patch.object(pipeline, "alone", alone),
        mock.patch.object(experiment, "alone", alone),
        mock.patch.object(experiment, "running", nothing),
        mock.patch.object(experiment, "publish", lambda *_: None),
        mock.patch.object(tracked, "start_tracking", mock.MagicMock()),
        mock.patch.object(experiment_report, "report", mock.MagicMock()),
    ):
        experiment.experiment.fn(prepared.config)
