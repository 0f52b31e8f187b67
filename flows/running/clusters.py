"""The clusters that shards of work can run on; their libraries are imported when one is used."""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from flows.terminal.environment import is_loopback
from real_tasks.tasks.cache.machine import workers
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Cluster:
    """A cluster in use.

    Attributes:
        runner: Prefect's task runner that submits to it.
        hosts: the machines of its workers.
        asking: the context in which a task is submitted so that it gets what it needs.
    """

    runner: Any
    hosts: tuple[str, ...]
    asking: Callable[[ExecutionConfig], AbstractContextManager[Any]]


@dataclass(frozen=True)
class ClusterKind:
    """How to start, or join, a kind of cluster.

    Attributes:
        extra: the optional dependencies that it needs.
        package: what they install.
        start: a context in which the cluster is there, given the environment of its processes.
        hint: further words for who cannot join one.
    """

    extra: str
    package: str
    start: Callable[[ExecutionConfig, Environment], AbstractContextManager[Cluster]]
    hint: str = ""

    def check(self) -> None:
        """Raise a `UserInputError` where the extra is not installed."""
        _optional(self.package, self.extra)


def check_reachable(api_url: str, *hosts: str | None) -> None:
    """Check that workers on ``hosts`` (or at such addresses) can reach the Prefect server.

    Raises:
        UserInputError: a host is another machine, and the server listens to this one only.
    """
    elsewhere = [host for host in hosts if host and not _is_this_machine(host)]
    if elsewhere and _leads_here(_host(api_url)):
        raise UserInputError(
            f"workers on {elsewhere[0]} cannot reach the Prefect server at {api_url}, an address "
            "that leads every machine to itself: start a server at an address of this machine "
            "that they reach, and set PREFECT_API_URL to it, as http://HOST:4200/api"
        )


@contextmanager
def _ray_cluster(execution: ExecutionConfig, environment: Environment) -> Iterator[Cluster]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    prefect_ray, ray = _optional("prefect_ray", "ray"), _optional("ray", "ray")
    remote_options = import_module("prefect_ray.context").remote_options
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if execution.address is None:
        # References travel, never data, so that the shared memory can be small.
        options |= {
            "address": "local",
            "num_cpus": workers(execution) * execution.cpus_per_task,
            "include_dashboard": False,
            "object_store_memory": 100 * 2**20,
        }
    else:
        options["address"] = execution.address
    sigterm = signal.getsignal(signal.SIGTERM)
    # As its own argument, Prefect takes auto for permission to start a cluster where none is.
    with prefect_ray.RayTaskRunner(init_kwargs=options) as runner:
        if signal.getsignal(signal.SIGTERM) is not sigterm:  # Ray has taken it
            signal.signal(signal.SIGTERM, sigterm)
        available: Mapping[str, float] = ray.cluster_resources()

        def asking(execution: ExecutionConfig) -> AbstractContextManager[Any]:
            needs = _ray_needs(execution, available)
            options: AbstractContextManager[Any] = remote_options(
                **needs, runtime_env={"env_vars": dict(environment)}
            )
            return options

        nodes = [node for node in ray.nodes() if node["Alive"]]
        yield Cluster(runner, tuple(node["NodeManagerAddress"] for node in nodes), asking)


def _ray_needs(execution: ExecutionConfig, available: Mapping[str, float]) -> dict[str, Any]:
    """Return a task's options, by https://docs.ray.io/en/latest/ray-core/api/doc/ray.remote.html.

    Raises:
        UserInputError: no node can ever have what a task asks for.
    """
    gpus = execution.gpus_per_task
    if gpus is None:
        gpus = 1 if execution.device != "cpu" and available.get("GPU", 0) >= 1 else 0
    needs: dict[str, Any] = {"num_cpus": execution.cpus_per_task, "max_retries": execution.retries}
    if gpus:
        # By default Ray ends a process after one task on a GPU, and the next loads the model anew.
        needs |= {"num_gpus": gpus, "max_calls": 0}
    if execution.address is None and gpus > available.get("GPU", 0):
        raise UserInputError(
            f"a task asks for {gpus:g} GPUs (execution.gpus_per_task), and this machine has "
            f"{available.get('GPU', 0):g}: ask for fewer, or give a cluster by execution.address"
        )
    return needs


@contextmanager
def _dask_cluster(execution: ExecutionConfig, environment: Environment) -> Iterator[Cluster]:
    prefect_dask, dask = _optional("prefect_dask", "dask"), _optional("dask", "dask")
    logging.getLogger("distributed").setLevel(logging.ERROR)

    def asking(execution: ExecutionConfig) -> AbstractContextManager[Any]:
        needs = {"GPU": execution.gpus_per_task} if execution.gpus_per_task else {}
        annotations: AbstractContextManager[Any] = dask.annotate(resources=needs)
        return annotations

    def set_environment() -> None:
        os.environ.update(environment)

    def spare() -> None:
        # A terminal sends Ctrl-C to workers too, which would each print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    local = {
        "n_workers": workers(execution),
        "threads_per_worker": 1,
        "env": dict(environment),
        "dashboard_address": "127.0.0.1:0",
        # By default a worker is killed when it uses more than its share, and a model may.
        "memory_limit": 0,
    }
    where = {"address": execution.address} if execution.address else {"cluster_kwargs": local}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": execution.retries}),
        prefect_dask.DaskTaskRunner(**where) as runner,
    ):
        client = runner.client
        client.register_worker_callbacks(set_environment if execution.address else spare)
        found = client.scheduler_info(n_workers=-1)["workers"].values()
        yield Cluster(runner, tuple(worker["host"] for worker in found), asking)


def _optional(package: str, extra: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise UserInputError(
            f"execution.runner is {extra}, and {package} is not installed: "
            f"pip install real-steering[{extra}]"
        ) from error


def _host(address: str) -> str:
    parts = urlsplit(address if "://" in address else f"//{address}")
    return parts.hostname or address


def _is_this_machine(address: str) -> bool:
    host = _host(address)
    names = {"auto", "local", socket.gethostname(), socket.getfqdn()}
    return _leads_here(host) or host in names or _is_own_address(host)


def _leads_here(host: str) -> bool:
    """Say whether the address leads to the machine itself, whichever machine asks."""
    return is_loopback(host) or host in ("0.0.0.0", "::")  # noqa: S104


def _is_own_address(host: str) -> bool:
    """Say whether a socket can be bound to the address, which only one's own machine lets one."""
    try:
        family, _, _, _, bound = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(bound)
    except OSError:
        return False
    return True


CLUSTERS = {
    "ray": ClusterKind(
        "ray",
        "prefect_ray",
        _ray_cluster,
        "; at ray://, a cluster may ask for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN",
    ),
    "dask": ClusterKind("dask", "prefect_dask", _dask_cluster),
}
"""By the name in `execution.runner`."""
