"""What `real status` shows: the stack, what runs and is due, the store, the last runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import humanize

from flows.running.processes import orphans
from flows.stack.servers import Record, Servers
from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.results.summary import Row, result_table
from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.stack_state import StackState, is_held, read_state

NEXT_RUNS = 5
LAST_RUNS = 5


@dataclass(frozen=True)
class StackStatus:
    """What is known of the stack of a home.

    Attributes:
        state: what it started; None where there is no stack.
        services: each server and the worker, and how it is, in words.
        runs: the flow runs that run and are due: name, deployment, state or time.
        problems: why Prefect could not be asked, and what killed stacks and runs left.
    """

    state: StackState | None = None
    services: dict[str, str] = field(default_factory=dict)
    runs: Sequence[tuple[str, str, str]] = ()
    problems: tuple[str, ...] = ()


def stack_status(home: Home) -> StackStatus:
    """Ask the stack of a home how it is; what does not answer is said, and no error."""
    state = read_state(home)
    count = len(orphans(home))
    left = (f"killed ones left {count} processes; `real down` stops them",) if count else ()
    if state is None or not is_held(home):
        return StackStatus(problems=left)
    servers = Servers.of(state)
    answers = {"prefect": servers.prefect_is_healthy(), "mlflow": servers.mlflow_is_healthy()}
    services = {name: "healthy" if ok else "does not answer" for name, ok in answers.items()}
    try:
        services["worker"] = _worker(servers.workers())
        runs = servers.unfinished_runs(of_pool=False) + servers.scheduled_runs(NEXT_RUNS)
        return StackStatus(state, services, run_lines(runs, servers.deployment_names()), left)
    except httpx.HTTPError as error:
        services.setdefault("worker", "unknown")
        problem = f"Prefect does not answer: {error}"
        return StackStatus(state, services, problems=(problem, *left))


def last_runs(home: Home, count: int = LAST_RUNS) -> list[dict[str, str]]:
    """Return the last runs, the newest first, with what the best method gave on test questions."""
    catalog = Catalog(home)
    runs = catalog.query(f"FROM runs ORDER BY started_at DESC LIMIT {count}").to_pylist()
    if not runs:
        return []
    names = ", ".join(f"'{run['run_id']}'" for run in runs)
    query = f"FROM evaluations WHERE split = 'test' AND run_id IN ({names})"
    rows = catalog.query(query).to_pylist()
    return [_line(run, [r for r in rows if r["run_id"] == run["run_id"]]) for run in runs]


def run_lines(runs: Iterable[Record], names: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return of flow runs the name, the deployment, and how they are or when they are due.

    ``names`` are those of deployments by their ids.
    """
    lines = []
    for run in runs:
        state = str(run["state_name"]).lower()
        if run["state_type"] == "SCHEDULED":
            due = datetime.fromisoformat(run["expected_start_time"])
            state += f", {humanize.naturaltime(due)}"
        deployment = names.get(str(run["deployment_id"]), "from a terminal")
        lines.append((run["name"], deployment, state))
    return lines


def _worker(workers: Sequence[Record]) -> str:
    online = sum(worker["status"] == "ONLINE" for worker in workers)
    return {0: "offline", 1: "healthy"}.get(online, f"healthy ({online} workers)")


def _line(run: dict[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """Return a run's line: its headline metric, unsteered and by the best method."""
    line = {name: str(run[name]) for name in ("run_id", "flow", "model", "behaviour", "status")}
    metrics = headline_metrics(row["metric"] for row in rows)
    if not metrics:
        return line | {"result": "-"}
    metric = metrics[0]
    means = {row["method"]: row[metric] for row in result_table(rows) if metric in row}
    best = max(means, key=lambda method: means[method])
    result = f"{metric_label(metric)} {means[best]:.2f} ({best})"
    if "unsteered" in means and best != "unsteered":
        result += f", unsteered {means['unsteered']:.2f}"
    return line | {"result": result}
