"""Starting a flow from a terminal."""

import logging
import warnings

from prefect.task_runners import ThreadPoolTaskRunner

from flows.experiment import Summary, experiment
from real_tasks.config import ExperimentConfig
from real_tasks.results import Row, result_table
from real_tasks.tasks.machine import workers
from real_tasks.tasks.reporting import run_rows
from storage.paths import Home


def launch(config: ExperimentConfig) -> tuple[Summary, list[Row]]:
    """Run the experiment here, and return its summary and its table of results."""
    for noisy in ("prefect", "mlflow", "alembic", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="prefect")
    runner = ThreadPoolTaskRunner(max_workers=workers(config.execution))  # type: ignore[arg-type]
    summary = experiment.with_options(task_runner=runner)(config)
    return summary, result_table(run_rows(Home.current(), "evaluations", summary.run_id))
