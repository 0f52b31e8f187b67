"""Starting a flow from a terminal."""

import logging
import warnings
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner
from transformers.utils import logging as transformers_logging

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
    summary = experiment.with_options(task_runner=runner)(config)
    return summary, result_table(run_rows(Home.current(), "evaluations", summary.run_id))
