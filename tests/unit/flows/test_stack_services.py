"""How a stack's processes are started, and how their logs and pages are read."""

import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.stack.child import Child, Condition, last_lines
from flows.stack.options import StackOptions
from flows.stack.services import Service, Services
from flows.stack.status import last_runs, run_lines, stack_status
from flows.terminal.environment import joined_stack, use_home
from storage.paths import Home
from storage.stack_state import StackState, only_stack, write_state
from tests.unit.stack_states import some_state

OPTIONS = StackOptions("127.0.0.1", 4321, 5432, auth="ada:correct%horse-12")


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("REAL_AUTH", "somebody:else")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    monkeypatch.setenv("PREFECT_API_KEY", "of another server")
    return Services(Home(tmp_path), OPTIONS)


def test_no_process_of_a_stack_is_led_to_another_server(services: Services) -> None:
    for service in (services.prefect(), services.mlflow(), services.setup(), services.worker()):
        assert "elsewhere" not in " ".join(service.environment.values())
        assert not {"PREFECT_API_KEY", "REAL_AUTH"} & set(service.environment)
        assert service.environment["REAL_PART"] == service.name
    assert services.worker().environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"


def test_prefects_pages_call_their_own_server_and_no_other_page_may(services: Services) -> None:
    settings = services.prefect().environment
    assert settings["PREFECT_SERVER_API_PORT"] == "4321"
    assert settings["PREFECT_SERVER_UI_API_URL"] == "/api"
    origins = settings["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert {"http://127.0.0.1:4321", "http://localhost:4321"} <= set(origins)
    assert "*" not in settings["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]


def test_both_servers_ask_for_the_password_and_no_command_line_shows_it(services: Services) -> None:
    prefect, mlflow = services.prefect(), services.mlflow()
    assert prefect.environment["PREFECT_SERVER_API_AUTH_STRING"] == OPTIONS.auth
    assert mlflow.environment["MLFLOW_AUTH_ADMIN_PASSWORD"] == "correct%horse-12"
    assert "basic-auth" in mlflow.command
    assert "admin_username = ada" in Path(mlflow.environment["MLFLOW_AUTH_CONFIG_PATH"]).read_text()
    for service in (prefect, mlflow, services.worker()):
        assert "horse" not in " ".join(service.command)


def test_mlflow_serves_the_database_that_runs_write_to(services: Services, tmp_path: Path) -> None:
    command = services.mlflow().command
    assert command[command.index("--backend-store-uri") + 1] == Home(tmp_path).mlflow_uri


def test_commands_of_a_home_join_its_running_stack_and_no_dead_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    write_state(Home(home), some_state())
    use_home(None)
    assert "PREFECT_API_URL" not in os.environ and joined_stack() is None
    with only_stack(Home(home)):
        use_home(None)
        assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
        assert os.environ["PREFECT_API_AUTH_STRING"] == "ada:correct-horse"
        assert joined_stack() == some_state()


def test_a_server_that_the_environment_names_goes_before_the_stacks(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    with only_stack(Home(home)):
        write_state(Home(home), some_state())
        use_home(None)
        assert os.environ["PREFECT_API_URL"] == "http://elsewhere/api"
        assert joined_stack() is None


def saying(*texts: str, healthy: bool = False) -> Callable[[], Service]:
    """Make a service that says something else at every start."""
    waiting = iter(texts)

    def make() -> Service:
        command = [sys.executable, "-c", f"print({next(waiting)!r}, end='')"]
        return Service("a", command, os.environ, (lambda: False) if healthy else None)

    return make


def ended(child: Child) -> Condition:
    deadline = time.monotonic() + 20
    while (condition := child.condition()) is Condition.starting:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return condition


def test_a_log_line_is_given_once_when_it_is_whole_and_a_restart_goes_on_with_the_log(
    tmp_path: Path,
) -> None:
    child = Child(saying("one\n\ntw", "o\n"), tmp_path / "logs")
    assert ended(child) is Condition.done and child.new_lines() == ["one"]
    child.restart()
    assert ended(child) is Condition.done and child.new_lines() == ["two"]
    assert child.new_lines() == []


def test_a_new_log_keeps_the_one_before(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("first\n")
    ended(Child(saying(""), tmp_path))
    assert log.read_text() == "" and log.with_name("a.log.1").read_text() == "first\n"
    assert last_lines(log) == "(its log is empty)"


def test_a_server_that_ends_by_itself_has_failed_and_says_how_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    child = Child(saying("no room", healthy=True), tmp_path)
    assert ended(child) is Condition.ended
    assert re.match(r"a ended \(0\)\. The end of .*a\.log:\nno room", child.failure())
    assert [child.plan_restart() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_last_lines_are_those_that_say_something(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1\n2\n\n3\n\n")
    assert last_lines(tmp_path / "log", 2) == "2\n3"


def test_runs_are_listed_with_their_deployment_and_when_they_are_due() -> None:
    now = datetime.now(UTC)
    keys = ("name", "deployment_id", "state_type", "state_name", "expected_start_time")
    runs = (
        ("a", None, "RUNNING", "Running", str(now)),
        ("b", "d1", "SCHEDULED", "Scheduled", str(now + timedelta(minutes=5, seconds=9))),
        ("c", "d1", "SCHEDULED", "Late", str(now - timedelta(hours=3, seconds=9))),
    )
    found = run_lines([dict(zip(keys, run, strict=True)) for run in runs], {"d1": "clean"})
    assert found == [
        ("a", "from a terminal", "running"),
        ("b", "clean", "scheduled, 5 minutes from now"),
        ("c", "clean", "late, 3 hours ago"),
    ]


def test_the_status_of_a_home_without_a_stack_and_without_runs_is_empty(tmp_path: Path) -> None:
    status = stack_status(Home(tmp_path))
    assert status.state is None and status.problems == ()
    assert last_runs(Home(tmp_path)) == []


def test_servers_that_do_not_answer_are_said_to_not_answer(tmp_path: Path) -> None:
    state: StackState = some_state().model_copy(
        update={"prefect_url": "http://127.0.0.1:9", "mlflow_url": "http://127.0.0.1:9"}
    )
    home = Home(tmp_path)
    with only_stack(home):
        write_state(home, state)
        status = stack_status(home)
    assert status.services["prefect"] == status.services["mlflow"] == "does not answer"
    assert status.services["worker"] == "unknown" and status.problems
