"""Starting a flow from a terminal."""

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner
from transformers.utils import logging as transformers_logging

from flows.console import err
from flows.experiment import Summary, experiment
from real_tasks.config import ExperimentConfig
from real_tasks.results import result_table
from real_tasks.tasks.machine import workers
from real_tasks.tasks.reporting import run_rows
from storage.paths import Home


def launch(config: ExperimentConfig) -> tuple[Summary, list[dict[str, Any]]]:
    """Run the experiment here, and return its summary and its table of results."""
    for noisy in ("prefect", "mlflow", "alembic", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="prefect")
    transformers_logging.disable_progress_bar()
    runner: Any = ThreadPoolTaskRunner(max_workers=workers(config.execution))
    with _two_step_interrupt():
        summary = experiment.with_options(task_runner=runner)(config)
    return summary, result_table(run_rows(Home.current(), "evaluations", summary.run_id))


@contextmanager
def _two_step_interrupt() -> Iterator[None]:
    """On Ctrl-C let running tasks end, since threads cannot be stopped; on a second one exit."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        err.print("stopping when the running tasks are done; Ctrl-C again stops at once")
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
