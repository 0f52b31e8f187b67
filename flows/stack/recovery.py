"""Flow runs whose process is gone: they go on from the cache as soon as a worker is there.

Prefect itself leaves them running for ever, and their deployment's place in line taken, but for an
automation of ours that sets silent ones to Crashed.
"""

import socket
from collections.abc import Iterable
from datetime import datetime

from flows.running.processes import is_owned
from flows.stack.servers import Record, Servers
from flows.stack.services import WORKER

MOST_ATTEMPTS = 3
"""A run that was interrupted as often is left: it may be what kills its worker."""

_INTERRUPTED = ("RUNNING", "PENDING", "CRASHED", "CANCELLING")


def resume_lost(
    servers: Servers, worker_lives: bool, crashed_since: datetime | None = None
) -> list[str]:
    """Schedule again the runs of the pool whose process died unnoticed; say what was done.

    Args:
        servers: where the runs are known.
        worker_lives: whether the stack's worker runs: it is about to start a run without a process.
        crashed_since: start of a stack that has had no worker yet: what was set to Crashed since
            was lost before, and the server has noticed just now.
    """
    runs = servers.unfinished_runs()
    if crashed_since is not None:
        runs += servers.crashed_runs(crashed_since)
    if not runs:
        return []
    if others := _other_workers(servers):
        return [
            f"{len(runs)} interrupted runs are left as they are: they may be those of the workers "
            f"{', '.join(others)}"
        ]
    lost = (run for run in runs if _is_lost(run, worker_lives))
    return [_give_up(servers, run) or _resume(servers, run) for run in lost]


def resume_stopped(servers: Servers, runs: Iterable[Record]) -> list[str]:
    """Schedule again those of the runs that did not end by themselves; say what was done."""
    found = (servers.run(str(run["id"])) for run in runs)
    return [_resume(servers, run) for run in found if run["state_type"] in _INTERRUPTED]


def _give_up(servers: Servers, run: Record) -> str | None:
    attempts = int(run["run_count"])
    if attempts < MOST_ATTEMPTS or run["state_type"] == "CANCELLING":
        return None
    message = (
        f"its process on {socket.gethostname()} was lost, at the attempt {attempts}, and is not "
        "started again by itself; see the log of the worker, then retry it here: what is done is "
        "in the cache"
    )
    servers.set_run_state(str(run["id"]), "CRASHED", "Crashed", message)
    return f"the run {run['name']} was interrupted {attempts} times and is left as crashed"


def _resume(servers: Servers, run: Record) -> str:
    name, identifier = run["name"], str(run["id"])
    if run["state_type"] == "CANCELLING":
        servers.set_run_state(identifier, "CANCELLED", "Cancelled", "its process is gone")
        return f"the run {name} is cancelled, as it was asked to be"
    message = "interrupted with its worker; goes on from the cache when a worker is there"
    servers.set_run_state(identifier, "SCHEDULED", "AwaitingRetry", message)
    return f"the run {name} was interrupted and goes on from the cache"


def _other_workers(servers: Servers) -> list[str]:
    found = servers.workers()
    return [w["name"] for w in found if w["status"] == "ONLINE" and w["name"] != WORKER]


def _is_lost(run: Record, worker_lives: bool) -> bool:
    # Prefect writes the process as "1234", older versions as "host:1234".
    pid = str(run["infrastructure_pid"] or "").rpartition(":")[2]
    if not pid.isdigit():
        return not worker_lives
    return not is_owned(int(pid))
