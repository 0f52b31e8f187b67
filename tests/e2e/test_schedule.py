"""A real server, a real worker: a schedule is switched on, and the scheduled run comes and ends."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.stack.deployments import PREFECT_FILE, flow_of, read_deployments, register_all

ROOT = Path(__file__).parents[2]
POOL = "real"
FULL_NAMES = {spec.name: f"{flow_of(spec).name}/{spec.name}" for spec in read_deployments()}
PATIENCE_S = 240
"""For what takes seconds on a free machine."""

T = TypeVar("T")


@contextmanager
def process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a command of Prefect's until the context ends, and leave nothing behind."""
    with log.open("w") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(running.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    running.wait(timeout=20)


def until(found: Callable[[], T | None], what: str, log: Path) -> T:
    """Return what is found, once it is."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        value = found()
        if value is not None:
            return value
        time.sleep(1)
    raise AssertionError(f"{what} did not come; the log ends:\n{log.read_text()[-3000:]}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of servers and workers: a home and a port of their own."""
    home, port = tmp_path_factory.mktemp("stack"), str(free_port())
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return own | {
        "REAL_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def server(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A server with all deployments."""
    log = Path(environment["REAL_HOME"]) / "server.log"
    port = environment["PREFECT_SERVER_API_PORT"]
    with process(["server", "start", "--port", port], environment, log):
        until(lambda: healthy(environment["PREFECT_API_URL"]), "the server", log)
        with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
            register_all(POOL)
            yield environment


def healthy(url: str) -> bool | None:
    with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
        return bool(answer.status == 200) or None
    return None


def ask(question: Callable[[PrefectClient], Awaitable[T]]) -> T:
    """Ask the server."""

    async def asked() -> T:
        async with get_client() as client:
            return await question(client)

    return asyncio.run(asked())


def deployment(name: str) -> DeploymentResponse:
    return ask(lambda client: client.read_deployment_by_name(FULL_NAMES[name]))


def runs_of(name: str) -> list[FlowRun]:
    of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment(name).id]))
    return ask(lambda client: client.read_flow_runs(flow_run_filter=of_it))


def switch(name: str, slug: str, active: bool) -> None:
    """Switch a schedule as the page does: without its parameters, the server forgets them."""
    found = deployment(name)
    schedule = next(one for one in found.schedules if one.slug == slug)
    values: dict[str, Any] = {"active": active, "parameters": schedule.parameters}
    ask(lambda client: client.update_deployment_schedule(found.id, schedule.id, **values))


def test_a_schedule_that_is_switched_on_makes_a_run_that_finishes(server: dict[str, str]) -> None:
    often = IntervalSchedule(interval=timedelta(seconds=15))
    made = DeploymentScheduleCreate(
        schedule=often, active=False, slug="often", parameters={"config": {"log_days": 3}}
    )
    clean = deployment("clean")
    ask(lambda client: client.create_deployment_schedules(clean.id, [made]))
    assert runs_of("clean") == []
    switch("clean", "often", active=True)

    def finished() -> FlowRun | None:
        return next((run for run in runs_of("clean") if run.state and run.state.is_final()), None)

    log = Path(server["REAL_HOME"]) / "worker.log"
    with process(["worker", "start", "--pool", POOL], server, log):
        run = until(finished, "a scheduled run", log)
        switch("clean", "often", active=False)
    assert run.state is not None and run.state.is_completed(), run.state
    assert run.auto_scheduled
    assert run.name == "clean-dry-run"
    assert run.parameters == {"config": {"log_days": 3}}


def test_what_was_switched_on_stays_on_when_all_is_registered_again(
    server: dict[str, str],
) -> None:
    mine = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(days=2)))
    compare, rescore = deployment("compare"), deployment("rescore")
    ask(lambda client: client.create_deployment_schedules(compare.id, [mine]))
    switch("rescore", "nightly", active=True)
    transfer = deployment("transfer")
    ask(lambda client: client.pause_deployment(transfer.id))
    names = register_all(POOL)
    assert [deployment(name).paused for name in ("transfer", "compare")] == [True, False]
    assert names == list(FULL_NAMES.values())
    assert deployment("rescore").id == rescore.id
    active = {one.slug: one.active for one in deployment("rescore").schedules}
    assert active == {"nightly": True, "every-six-hours": False}
    (kept,) = deployment("compare").schedules
    assert (kept.slug, kept.active) == (None, True)
    assert kept.schedule.interval == timedelta(days=2)  # type: ignore[union-attr]


def test_an_automation_is_made_once(server: dict[str, str]) -> None:
    before = ask(lambda client: client.read_automations())
    register_all(POOL)
    after = ask(lambda client: client.read_automations())
    assert sorted(one.name for one in after) == sorted({one.name for one in before})
    assert len(after) >= 2


def test_prefects_own_command_deploys_the_same_and_sets_schedules_back(
    server: dict[str, str],
) -> None:
    switch("rescore", "nightly", active=True)
    command = ["deploy", "--all", "--prefect-file", str(PREFECT_FILE.relative_to(ROOT))]
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *command],
        cwd=ROOT,
        env=server,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for spec in read_deployments():
        found = deployment(spec.name)
        assert found.entrypoint == spec.entrypoint
        assert found.concurrency_options is not None
        slugs = {schedule.slug for schedule in spec.schedules}
        assert {one.slug for one in found.schedules if one.slug in slugs} == slugs
    assert not any(one.active for one in deployment("rescore").schedules)
