"""One machine as its user operates it: the stack is started, looked at, joined, killed, stopped."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.running.processes import OWNER_VARIABLE, lives, owned_by
from flows.stack.deployments import PREFECT_FILE, flow_of, read_deployments, register_all
from storage.paths import Home
from storage.stack_state import read_state
from tests.e2e.stack import Up, ask, real, start, until
from tests.flows.test_rescore import DATA, lines
from tests.forms import sent
from tests.terminal import ROOT, RUN, environment

pytestmark = [pytest.mark.timeout(600)]

FULL_NAMES = {spec.name: f"{flow_of(spec).name}/{spec.name}" for spec in read_deployments()}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[Up]:
    """A stack that all tests here share; its last test kills it."""
    home = tmp_path_factory.mktemp("up") / "home"
    Home(home).prefect.mkdir(parents=True)
    shutil.copy(prefect_database, Home(home).prefect / "prefect.db")
    started = start(home)
    try:
        started.wait_until_ready()
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
            started.process.wait(60)


def test_all_is_healthy_and_the_deployments_are_there(up: Up) -> None:
    state = up.state
    assert state.ready and state.prefect_url in up.output and state.mlflow_url in up.output
    assert set(up.pids) == {"prefect", "mlflow", "worker"}
    (pool,) = up.post("work_pools/filter", {})
    assert (pool["name"], pool["type"], pool["status"]) == ("real", "process", "READY")
    names = {deployment["name"] for deployment in up.post("deployments/filter", {})}
    assert {"experiment", "transfer", "compare", "clean"} <= names
    settings = httpx.get(f"{state.prefect_url}/ui-settings").json()
    assert settings["api_url"] == "/api", "the pages call the server that they came from"
    assert "<html" in httpx.get(f"{state.mlflow_url}/").text


def test_pages_of_other_origins_may_not_read_the_api(up: Up) -> None:
    url = f"{up.state.api_url}/work_pools/filter"
    own, other = (
        httpx.post(url, json={}, headers={"Origin": origin}).headers.get(
            "access-control-allow-origin"
        )
        for origin in (up.state.prefect_url, "http://evil.example")
    )
    assert own == up.state.prefect_url and other is None


def test_a_second_stack_on_the_home_is_refused_and_the_first_runs_on(up: Up) -> None:
    second = real(up.home, "up")
    assert second.returncode == 2
    assert up.state.prefect_url in second.stderr and "real down" in second.stderr
    assert up.process.poll() is None and up.post("work_pools/filter", {})


def test_a_run_from_a_terminal_joins_and_the_status_shows_what_it_gave(up: Up) -> None:
    done = real(up.home, *RUN)
    assert done.returncode == 0, done.stderr
    assert f"joining the running stack: {up.state.prefect_url}" in done.stderr
    (run,) = up.post("flow_runs/filter", {})
    assert (run["state_name"], run["deployment_id"]) == ("Completed", None)
    found = httpx.get(
        f"{up.state.mlflow_url}/api/2.0/mlflow/experiments/get-by-name",
        params={"experiment_name": "real-steering"},
    )
    assert found.status_code == 200, "MLflow's server serves what the run recorded"

    status = real(up.home, "status")
    assert status.returncode == 0, status.stderr
    assert len(re.findall(r"^(?:prefect|mlflow|worker) +healthy", status.stdout, re.M)) == 3
    for part in (up.state.prefect_url, "artifacts/activations", "tables/", "completed", "MC1"):
        assert part in status.stdout, part


def form_of(up: Up, name: str) -> dict[str, Any]:
    """What a deployment's form sends as it is."""
    (deployment,) = [d for d in up.post("deployments/filter", {}) if d["name"] == name]
    return sent(deployment["parameter_openapi_schema"])


def run_deployment(up: Up, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Press a deployment's Run button, wait for its end, and return the flow run."""
    (deployment,) = [d for d in up.post("deployments/filter", {}) if d["name"] == name]
    made = up.post(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    which = {"flow_runs": {"id": {"any_": [made["id"]]}}}
    ended = lambda: up.post("flow_runs/filter", which)[0]["end_time"] is not None  # noqa: E731
    assert until(ended, 300), up.output
    run: dict[str, Any] = up.post("flow_runs/filter", which)[0]
    return run


def test_a_default_run_from_its_form_is_scored_again_from_the_form_and_with_grown_data(
    up: Up,
) -> None:
    form = small_form(form_of(up, "experiment"))
    assert form["methods"] == form["evaluation"]["measures"] == []
    (up.home.parent / "neutral.txt").write_text("\n\n".join(DATA.neutral_texts[:4]))
    (up.home.parent / "questions.jsonl").write_text(lines(0, 12))
    assert run_deployment(up, "experiment", {"config": form})["state_name"] == "Completed"
    default = {"config": form_of(up, "rescore")}
    assert run_deployment(up, "rescore", default)["state_name"] == "Completed"
    (up.home.parent / "questions.jsonl").write_text(lines(0, 16))
    assert run_deployment(up, "rescore", {})["state_name"] == "Completed"
    query = "SELECT DISTINCT what_changed, data_questions, method FROM score_drift ORDER BY ALL"
    assert table(up, query) == ['"",12,real', "data,16,real"]


def small_form(form: dict[str, Any]) -> dict[str, Any]:
    """Give a form the questions of a file, and sizes of which two cores are not long busy."""
    form["behaviour"] = {"name": "jsonl", "params": {"path": "questions.jsonl"}}
    form["evaluation"] |= {"neutral": "neutral.txt", "max_kl": 100.0, "max_new_tokens": 4}
    form["evaluation"] |= {"top_k": [2], "alphas": [1.0], "bootstrap_samples": 50}
    form["model"]["params"] = {"steps": 1}
    form["localizer"]["params"] = {"epochs": 1, "prior_epochs": 1, "bootstrap_samples": 50}
    return form | {"seeds": [0]}


def table(up: Up, query: str) -> list[str]:
    """The lines of a query's result as CSV, without the header."""
    found = real(up.home, "sql", query, "--format", "csv")
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()[1:]


@pytest.fixture
def asked(up: Up) -> Iterator[None]:
    """Prefect's client within this process asks the stack's server."""
    with temporary_settings({PREFECT_API_URL: up.state.api_url}):
        yield


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


def test_a_schedule_that_is_switched_on_makes_a_run_that_finishes(up: Up, asked: None) -> None:
    often = IntervalSchedule(interval=timedelta(seconds=15))
    made = DeploymentScheduleCreate(
        schedule=often, active=False, slug="often", parameters={"config": {"log_days": 3}}
    )
    clean = deployment("clean")
    ask(lambda client: client.create_deployment_schedules(clean.id, [made]))
    assert runs_of("clean") == []
    switch("clean", "often", active=True)
    ended = lambda: [run for run in runs_of("clean") if run.state and run.state.is_final()]  # noqa: E731
    assert until(lambda: bool(ended()), 240), up.output
    switch("clean", "often", active=False)
    run = ended()[0]
    assert run.state is not None and run.state.is_completed(), run.state
    assert run.auto_scheduled
    assert run.name == "clean-dry-run"
    assert run.parameters == {"config": {"log_days": 3}}


def test_what_was_switched_on_stays_on_when_all_is_registered_again(asked: None) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    schedule = IntervalSchedule(interval=timedelta(days=2), anchor_date=tomorrow)
    mine = DeploymentScheduleCreate(schedule=schedule)
    compare, rescore = deployment("compare"), deployment("rescore")
    ask(lambda client: client.create_deployment_schedules(compare.id, [mine]))
    switch("rescore", "nightly", active=True)
    transfer = deployment("transfer")
    ask(lambda client: client.pause_deployment(transfer.id))
    automations = ask(lambda client: client.read_automations())
    names = register_all()
    assert [deployment(name).paused for name in ("transfer", "compare")] == [True, False]
    assert names == list(FULL_NAMES.values())
    assert deployment("rescore").id == rescore.id
    active = {one.slug: one.active for one in deployment("rescore").schedules}
    assert active == {"nightly": True, "every-six-hours": False}
    (kept,) = deployment("compare").schedules
    assert (kept.slug, kept.active) == (None, True)
    assert kept.schedule.interval == timedelta(days=2)  # type: ignore[union-attr]
    after = ask(lambda client: client.read_automations())
    assert len(after) >= 2, "an automation is made once"
    assert sorted(one.name for one in after) == sorted({one.name for one in automations})


def test_prefects_own_command_deploys_the_same_and_sets_schedules_back(up: Up, asked: None) -> None:
    switch("rescore", "nightly", active=True)
    command = ["deploy", "--all", "--prefect-file", str(PREFECT_FILE.relative_to(ROOT))]
    own = {"PREFECT_API_URL": up.state.api_url, "PREFECT_HOME": str(Home(up.home).prefect)}
    own["DO_NOT_TRACK"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *command],
        cwd=ROOT,
        env=environment(up.home, **own),
        capture_output=True,
        text=True,
        timeout=400,
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


def test_a_killed_worker_is_started_again(up: Up) -> None:
    before = up.pids
    os.kill(before["worker"], signal.SIGKILL)
    assert until(lambda: "worker was killed (signal 9)" in up.output, 30), up.output
    again = lambda: up.pids.get("worker", before["worker"]) != before["worker"]  # noqa: E731
    assert until(again, 30), up.output
    assert up.pids["prefect"] == before["prefect"]


@pytest.mark.drill
def test_nothing_is_left_of_a_stack_that_was_killed_while_it_ran_something(up: Up) -> None:
    (deployment,) = [d for d in up.post("deployments/filter", {}) if d["name"] == "experiment"]
    form = {"config": {"seeds": [7], "model": {"params": {"steps": 20_000}}}}
    up.post(f"deployments/{deployment['id']}/create_flow_run", {"parameters": form})
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    assert until(lambda: len(up.post("flow_runs/filter", running)) == 1, 120), up.output
    supervisor = up.state.supervisor
    up.process.kill()
    up.process.wait()
    assert until(lambda: not owned_by(supervisor), 30)
    assert "No stack runs" in real(up.home, "status").stdout


@pytest.mark.drill
def test_a_killed_stack_is_cleaned_up_by_the_next_which_ctrl_c_stops(up: Up) -> None:
    up.process.kill()
    up.process.wait()
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)"],
        env={**os.environ, OWNER_VARIABLE: up.state.supervisor.model_dump_json()},
    )
    next_one = start(up.home)
    try:
        assert left.wait(60) == -signal.SIGTERM
        next_one.wait_until_ready()
        assert "stopped 1 processes that killed ones had left" in next_one.output
        assert "was interrupted and goes on from the cache" in next_one.output
        supervisor = next_one.state.supervisor
        next_one.process.send_signal(signal.SIGINT)
        assert next_one.process.wait(60) == 0, next_one.output
        assert not owned_by(supervisor) and read_state(Home(up.home)) is None
        assert until(lambda: not lives(supervisor), 10)
    finally:
        left.kill()
        next_one.process.kill()
