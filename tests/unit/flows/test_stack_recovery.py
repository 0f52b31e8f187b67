"""Flow runs whose process is gone, at a server that is made up."""

import os
from datetime import UTC, datetime
from typing import Any

import pytest

from flows.stack import recovery
from flows.stack.recovery import MOST_ATTEMPTS, resume_lost, resume_stopped
from flows.stack.servers import Servers
from flows.stack.services import WORKER

DEAD_PID = 2**22 + 1


def run(name: str, **values: Any) -> dict[str, Any]:
    usual = {"state_type": "RUNNING", "run_count": 1, "infrastructure_pid": str(DEAD_PID)}
    return {"id": name, "name": name, **usual, **values}


class MadeUpServers(Servers):
    """Prefect's answers, and what was asked of it."""

    unfinished: list[dict[str, Any]]
    crashed: list[dict[str, Any]]
    known_workers: list[dict[str, Any]]
    states: dict[str, str]

    @classmethod
    def with_runs(cls, *runs: dict[str, Any]) -> "MadeUpServers":
        servers = cls("http://127.0.0.1:9", "http://127.0.0.1:9")
        values: dict[str, Any] = {"unfinished": list(runs), "crashed": [], "states": {}}
        values["known_workers"] = [{"name": WORKER, "status": "ONLINE"}]
        for name, value in values.items():
            object.__setattr__(servers, name, value)
        return servers

    def unfinished_runs(self, *_: Any) -> list[dict[str, Any]]:
        return list(self.unfinished)

    def crashed_runs(self, *_: Any) -> list[dict[str, Any]]:
        return list(self.crashed)

    def workers(self, *_: Any) -> list[dict[str, Any]]:
        return self.known_workers

    def run(self, run_id: str) -> dict[str, Any]:
        return next(item for item in self.unfinished if item["id"] == run_id)

    def set_run_state(self, run_id: str, *state: str) -> None:
        self.states[run_id] = state[1]


def test_a_run_whose_process_is_gone_goes_on() -> None:
    servers = MadeUpServers.with_runs(run("lost"), run("older", infrastructure_pid="host:4194305"))
    lines = resume_lost(servers, worker_lives=True)
    assert servers.states == {"lost": "AwaitingRetry", "older": "AwaitingRetry"}
    assert "goes on from the cache" in lines[0]


def test_a_run_whose_process_lives_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "is_owned", lambda pid: pid == os.getpid())
    servers = MadeUpServers.with_runs(run("lives", infrastructure_pid=str(os.getpid())))
    assert resume_lost(servers, worker_lives=True) == []
    assert servers.states == {}


def test_a_run_that_was_lost_too_often_is_left_as_crashed() -> None:
    servers = MadeUpServers.with_runs(run("killer", run_count=MOST_ATTEMPTS))
    resume_lost(servers, worker_lives=False)
    assert servers.states == {"killer": "Crashed"}


def test_a_run_that_was_to_be_cancelled_is_cancelled() -> None:
    servers = MadeUpServers.with_runs(run("unwanted", state_type="CANCELLING"))
    resume_lost(servers, worker_lives=False)
    assert servers.states == {"unwanted": "Cancelled"}


@pytest.mark.parametrize(
    ("worker_lives", "states"), [(True, {}), (False, {"new": "AwaitingRetry"})]
)
def test_a_run_without_a_process_is_lost_only_without_a_worker(
    worker_lives: bool, states: dict[str, str]
) -> None:
    servers = MadeUpServers.with_runs(run("new", state_type="PENDING", infrastructure_pid=None))
    resume_lost(servers, worker_lives)
    assert servers.states == states


def test_runs_are_left_alone_where_other_workers_may_have_them() -> None:
    servers = MadeUpServers.with_runs(run("elsewhere"))
    servers.known_workers.append({"name": "another-machine", "status": "ONLINE"})
    (line,) = resume_lost(servers, worker_lives=False)
    assert "another-machine" in line and servers.states == {}


def test_what_was_noticed_to_be_lost_before_the_first_worker_goes_on_too() -> None:
    servers = MadeUpServers.with_runs()
    servers.crashed.append(run("silent", state_type="CRASHED"))
    assert resume_lost(servers, worker_lives=False) == []
    resume_lost(servers, worker_lives=False, crashed_since=datetime.now(UTC))
    assert servers.states == {"silent": "AwaitingRetry"}


def test_of_the_runs_at_the_stop_those_that_ended_by_themselves_do_not_go_on() -> None:
    servers = MadeUpServers.with_runs(
        run("done", state_type="COMPLETED"),
        run("cut", state_type="CRASHED"),
        run("cut too", run_count=9),
    )
    resume_stopped(servers, servers.unfinished)
    assert servers.states == {"cut": "AwaitingRetry", "cut too": "AwaitingRetry"}
