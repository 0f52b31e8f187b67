"""Where tasks run: in threads of the flow's process, or on a Ray or Dask cluster.

Every flow has the one task runner `ConfiguredTaskRunner`, however it was started, from a terminal
or from a deployment: each task says itself, by its input ``execution``, where it belongs. A cluster
is started, or joined, when the first shard needs it.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from prefect.client.schemas.objects import RunInput
from prefect.context import FlowRunContext, SettingsContext, get_settings_context
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task

from flows.running.clusters import CLUSTERS, Cluster, check_reachable
from flows.running.signals import TERMINATED
from real_tasks.tasks.cache.machine import workers
from real_tasks.tasks.cache.stage import UNKEYED
from real_tasks.tasks.cache.stopping import stop_tasks
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError
from storage.paths import HOME_VARIABLE, Home

# Secrets are no part of it, since a cluster shows the environment of its tasks to whoever looks.
_PASSED_ON = (
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "DO_NOT_TRACK",
    "GOMP_SPINCOUNT",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_OFFLINE",
    "MLFLOW_DISABLE_TELEMETRY",
    "PREFECT_LOGGING_LEVEL",
    "PREFECT_SERVER_ANALYTICS_ENABLED",
    "REAL_STORE",
    "TOKENIZERS_PARALLELISM",
)

_PATIENCE_S = 3.0

_here: ContextVar[bool] = ContextVar("here", default=False)


@contextmanager
def here() -> Iterator[None]:
    """Keep what is submitted in the flow's own process, whatever runner is configured."""
    token = _here.set(True)
    try:
        yield
    finally:
        _here.reset(token)


def check_runner(execution: ExecutionConfig) -> None:
    """Check, before any work, that the configured cluster can be used.

    Raises:
        UserInputError: its extra is not installed, one device is asked for by number, or the
            cluster's workers cannot reach the Prefect server.
    """
    if execution.runner == "thread":
        if execution.address:
            raise UserInputError(
                f"execution.address is {execution.address}, but execution.runner is thread, which "
                "uses no cluster: give --runner ray or --runner dask, or leave the address out"
            )
        return
    CLUSTERS[execution.runner].check()
    if execution.device.startswith("cuda:"):
        raise UserInputError(
            f"execution.device is {execution.device}, but {execution.runner} chooses the GPU of "
            "each task: set it to cuda or auto"
        )
    check_reachable(PREFECT_API_URL.value() or "http://127.0.0.1/api", execution.address)


class ConfiguredTaskRunner(TaskRunner[PrefectFuture[Any]]):
    """Submits each task to what its input ``execution`` names; tasks without one to threads."""

    def __init__(self) -> None:
        """Start nothing yet: a copy of the runner travels with every task to a cluster."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._entered: ExitStack | None = None
        self._pools: dict[int, ThreadPoolTaskRunner[Any]] = {}
        self._clusters: dict[tuple[str, str | None], tuple[Cluster, SettingsContext]] = {}

    def duplicate(self) -> "ConfiguredTaskRunner":
        """Return a runner that has started nothing."""
        return type(self)()

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectFuture[Any]:
        """Submit the task, and start what it needs at the first one."""
        execution = parameters.get(UNKEYED) or ExecutionConfig()
        if execution.address and execution.runner != "thread":
            self._cluster(execution)  # what does not answer is better known before any work
        if _here.get() or execution.runner == "thread":
            pool = self._pool(workers(execution))
            return pool.submit(task, parameters, wait_for, dependencies)
        cluster, settings = self._cluster(execution)
        # Made anew each time, the settings would cost more than all else of a submission.
        with cluster.asking(execution), SettingsContext(**dict(settings)):
            future: PrefectFuture[Any] = cluster.runner.submit(
                task, parameters, wait_for, dependencies
            )
        return future

    def __enter__(self) -> "ConfiguredTaskRunner":
        super().__enter__()
        self._entered = ExitStack().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        assert self._entered is not None
        if _is_sigterm(exception[1]):
            self._leave_soon(self._entered)
        else:
            self._entered.__exit__(*exception)
        self._entered = None
        self._pools.clear()
        self._clusters.clear()
        super().__exit__(*exception)

    def _leave_soon(self, entered: ExitStack) -> None:
        """Stop pools and clusters, and go on without those that take long."""
        deadline = time.monotonic() + _PATIENCE_S
        leaving = threading.Thread(target=entered.close, daemon=True)
        leaving.start()
        while leaving.is_alive() and time.monotonic() < deadline:
            stop_tasks()
            leaving.join(0.1)

    def _pool(self, width: int) -> ThreadPoolTaskRunner[Any]:
        if width not in self._pools:
            self._pools[width] = self._enter(ThreadPoolTaskRunner(max_workers=width))
        return self._pools[width]

    def _cluster(self, execution: ExecutionConfig) -> tuple[Cluster, SettingsContext]:
        """Return the cluster, and the settings that its workers are to have."""
        key = (execution.runner, execution.address)
        if key not in self._clusters:
            api_url = _api_url()
            start = CLUSTERS[execution.runner].start
            try:
                cluster = self._enter(start(execution, _environment(api_url)))
            except (OSError, RuntimeError) as error:
                if execution.address is None:
                    raise
                raise UserInputError(
                    f"no {execution.runner} cluster answers at {execution.address} ({error}): "
                    "start it, or give another execution.address"
                    f"{CLUSTERS[execution.runner].hint}"
                ) from error
            check_reachable(api_url, *cluster.hosts)
            # The temporary server of a run without one has its address in no setting, and a worker
            # without an address starts a server of its own, which takes longer than most tasks.
            with temporary_settings({PREFECT_API_URL: api_url}):
                self._clusters[key] = cluster, get_settings_context()
        return self._clusters[key]

    def _enter(self, context: AbstractContextManager[Any]) -> Any:
        assert self._entered is not None, "a task runner takes tasks between enter and exit"
        return self._entered.enter_context(context)


def _is_sigterm(error: BaseException | None) -> bool:
    asked = isinstance(error, SystemExit) and error.code == TERMINATED
    return asked or isinstance(error, TerminationSignal)


def _api_url() -> str:
    """Return the address of the Prefect server that the flow talks to, a temporary one included."""
    context = FlowRunContext.get()
    assert context is not None, "a cluster takes tasks of flows only"
    return PREFECT_API_URL.value() or str(context.client.api_url)


def _environment(api_url: str) -> dict[str, str]:
    """Return what processes on a cluster need to find the same store and the same server."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Progress is shown by the flow's process alone.
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return kept | quiet | {HOME_VARIABLE: str(Home.current().root), "PREFECT_API_URL": api_url}
