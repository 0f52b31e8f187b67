"""What a run starts ends with it, however it ends; what is left is found, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.run_processes import RUN_VARIABLE, orphans, stop_orphans
from flows.stack_processes import mark
from storage.paths import Home

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
RUN = """
import subprocess, sys, time
from pathlib import Path
from flows.run_processes import ending_with_this_process
from storage.paths import Home
with ending_with_this_process(Home(Path(sys.argv[1]))):
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                             start_new_session=True)
after = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(server.pid, other.pid, after.pid, flush=True)
time.sleep(60)
"""
"""A run's process, with two children that belong to it and one that does not."""


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while mark("any", pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start processes, which are killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def popen(command: list[str], **variables: str) -> "subprocess.Popen[str]":
        environment = os.environ | variables
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env=environment)
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()


def owner(home: Home, pid: int, birth: str) -> str:
    return json.dumps({"name": str(home.root), "pid": pid, "birth": birth})


def test_what_a_run_started_ends_when_the_run_alone_is_killed(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    run = start([sys.executable, "-c", RUN, str(tmp_path)])
    assert run.stdout is not None
    server, other, after = map(int, run.stdout.readline().split())
    try:
        os.kill(run.pid, signal.SIGKILL)
        assert gone(server) and gone(other)
        assert mark("any", after) is not None, "it was started outside of the run"
    finally:
        os.kill(after, signal.SIGKILL)


def test_only_what_dead_runs_of_the_home_left_is_an_orphan_and_stopped(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    home, elsewhere = Home(tmp_path / "home"), Home(tmp_path / "elsewhere")
    own = mark(str(home.root), os.getpid())
    assert own is not None
    left = start(SLEEP, **{RUN_VARIABLE: owner(home, own.pid, "before")})
    others = (
        start(SLEEP, **{RUN_VARIABLE: own.model_dump_json()}),
        start(SLEEP, **{RUN_VARIABLE: owner(elsewhere, own.pid, "before")}),
        start(SLEEP, **{RUN_VARIABLE: "no mark"}),
        start(SLEEP, PREFECT__SERVER_EPHEMERAL="1", PREFECT_HOME=str(home.prefect)),
        start(SLEEP),
    )
    assert orphans(home) == [left.pid]
    assert stop_orphans(home) == [left.pid]
    assert left.wait(10) == -signal.SIGTERM
    assert [process.poll() for process in others] == [None] * len(others)
    assert orphans(home) == []


def test_a_temporary_server_without_a_mark_is_an_orphan_once_its_starter_is_gone(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    starter = (
        "import os, subprocess, sys; os.setsid(); "
        f"print(subprocess.Popen({SLEEP!r}, stdout=subprocess.DEVNULL).pid, flush=True); input()"
    )
    variables = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT_HOME": str(home.prefect)}
    process = subprocess.Popen(
        [sys.executable, "-c", starter],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | variables,
    )
    assert process.stdout is not None
    server = int(process.stdout.readline())
    # The starter carries the variables itself; it is told apart by its parent, which lives.
    assert server not in orphans(home)
    process.kill()
    process.communicate()
    try:
        assert server in orphans(home)
        assert server in stop_orphans(home) and gone(server)
    finally:
        if mark("any", server) is not None:
            os.kill(server, signal.SIGKILL)
