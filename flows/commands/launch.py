"""Starting a flow from a terminal."""

import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from types import FrameType
from typing import Any

from transformers.utils import logging as transformers_logging

from flows.experiment import Summary, experiment
from flows.rescore import RescoreSummary, rescore
from flows.running.own_server import serving
from flows.running.prefect_server import check_prefect_server
from flows.running.run_watch import check_needs, needs_watched
from flows.running.signals import INTERRUPTED, StoppedError, is_stopping, take_sigterm
from flows.stack.servers import Servers
from flows.terminal.console import err
from flows.terminal.environment import joined_stack
from flows.transfer import transfer
from real_tasks.experiment.prepared import Prepared, handing_over
from real_tasks.experiment.transfer import PreparedTransfer
from real_tasks.results.summary import result_table
from real_tasks.tasks.records.recorded import overall_rows
from real_tasks.tasks.rescoring.plan import plan_rescoring
from real_tasks.vocabulary.errors import UserInputError, WorkFailedError
from real_tasks.vocabulary.rescore_config import RescoreConfig
from storage.errors import StorageError
from storage.paths import Home
from storage.room import room_error
from storage.tables.parquet import read_run
from storage.tracking.tracker import Tracker

# A server takes 8 to 15 s to start.
_PATIENCE_S = 60.0


def launch(prepared: Prepared | PreparedTransfer) -> tuple[Summary, list[dict[str, Any]]]:
    """Run an experiment or a transfer here; return its summary, and its results over all folds."""
    carrying = isinstance(prepared, PreparedTransfer)
    with handing_over(prepared) as config:
        summary = _run(transfer if carrying else experiment, config)
    home, run_id = Home.current(), summary.run_id
    if carrying:
        return summary, overall_rows(home, "transfer", run_id)
    return summary, result_table(read_run(home, "evaluations", run_id))


def launch_rescore(config: RescoreConfig) -> RescoreSummary:
    """Run the re-scoring here, once what is wrong with it has been told; return its summary."""
    with handing_over(plan_rescoring(config)) as config:
        summary = _run(rescore, config)
    assert isinstance(summary, RescoreSummary)
    return summary


def _run(flow: Any, config: Any) -> Summary:
    for noisy in ("prefect", "mlflow", "alembic", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    for engine in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(engine).addFilter(_is_unexpected)
    warnings.filterwarnings("ignore", category=UserWarning, module="prefect")
    transformers_logging.disable_progress_bar()
    _join()
    home = Home.current()
    with needs_watched(home), serving(home) as own:
        # MLflow takes seconds to import, while the server's process takes as long to start.
        Thread(target=_prepare_tracking, args=(home,), daemon=True).start()
        if own is None:
            check_prefect_server()
        else:
            own.wait()
        with _two_step_interrupt():
            # Within a flow SIGTERM is Prefect's, which waits for its tasks and its server.
            summary: Summary = flow.with_options(on_running=[take_sigterm])(config)
    return summary


def _prepare_tracking(home: Home) -> None:
    with suppress(Exception):  # the run's own start of its record says what is wrong
        Tracker(home).initialise()


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Keep tracebacks for errors of ours: the command line tells the others in words."""
    error = record.exc_info[1] if record.exc_info else None
    ours = isinstance(error, UserInputError | WorkFailedError | StorageError)
    return not (ours or is_stopping() or room_error(Home.current(), error))


def _join() -> None:
    """Say where the run can be watched; wait for a server that starts at this moment.

    Raises:
        WorkFailedError: a stack runs on the home, but its server does not answer.
    """
    stack = joined_stack()
    if stack is None:
        return
    deadline = time.monotonic() + _PATIENCE_S
    while not Servers.of(stack).prefect_is_healthy():
        check_needs(Home.current(), stack)
        if time.monotonic() > deadline:
            raise WorkFailedError(
                f"a stack runs on this home, but its Prefect server {stack.prefect_url} does not "
                "answer: look with `real status`, stop it with `real down`, then run again"
            )
        time.sleep(0.5)
    err.print(f"joining the running stack: {stack.prefect_url}/runs", soft_wrap=True)


@contextmanager
def _two_step_interrupt() -> Iterator[None]:
    """On Ctrl-C let running tasks end, since threads cannot be stopped; on a second one exit.

    Tasks on a cluster are given up: the cluster is left, or stopped where the run had started it.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        err.print("stopping when the tasks of this process are done; Ctrl-C again stops at once")
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        raise StoppedError(INTERRUPTED)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
