"""What a run or a stack starts ends with it, however it ends; what is left is found, no other."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from flows.running import processes
from flows.running.processes import (
    OWNER_VARIABLE,
    PART_VARIABLE,
    is_owned,
    lives,
    mark,
    orphans,
    owned_by,
    stop_all,
)
from flows.stack.status import stack_status
from flows.stack.stopping import stop_stack
from flows.stack.view import Terminal
from storage.paths import Home
from storage.stack_state import ProcessMark, read_state, write_state
from tests.unit.stack_states import some_state

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(60)"
)
BARE = (
    "import subprocess, sys, time; "
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
    "start_new_session=True, env={}); print(p.pid, flush=True); time.sleep(60)"
)
"""A process with a child in a session of its own, whose environment is empty."""
OWNER = f"""
import subprocess, sys, time
from pathlib import Path
from flows.running.processes import owning
from storage.paths import Home
with owning(Home(Path(sys.argv[1]))):
    server = subprocess.Popen({SLEEP!r})
    other = subprocess.Popen([sys.executable, "-c", {BARE!r}], start_new_session=True)
    deaf = subprocess.Popen([sys.executable, "-c", {DEAF!r}])
    time.sleep(1)
after = subprocess.Popen({SLEEP!r})
print(server.pid, other.pid, deaf.pid, after.pid, flush=True)
time.sleep(60)
"""
"""An owner with children that belong to it, and one that does not."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
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


def gone(pid: int) -> bool:
    """Wait until no process of the number runs; a zombie runs no more."""
    deadline = time.monotonic() + 20
    while mark("any", pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def said(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def dead(home: Home) -> ProcessMark:
    """The mark of an owner whose number another process has taken."""
    return ProcessMark(name=str(home.root), pid=os.getpid(), birth="before")


def pids(found: set[psutil.Process]) -> set[int]:
    return {process.pid for process in found}


def test_a_mark_holds_while_its_process_lives(start: Start) -> None:
    process = start(SLEEP)
    found = mark("sleep", process.pid)
    assert found is not None and lives(found)
    assert not lives(found.model_copy(update={"birth": "another time"}))
    process.kill()
    process.wait()
    assert not lives(found)


def test_a_mark_holds_when_the_systems_clock_is_set(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(SLEEP)
    found = mark("sleep", process.pid)
    ahead = psutil.boot_time() + 3600
    monkeypatch.setattr(psutil, "boot_time", lambda: ahead)
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: ahead)
    assert found is not None and lives(found)


def test_all_that_an_owner_started_ends_when_the_owner_alone_is_killed(
    start: Start, tmp_path: Path
) -> None:
    owner = start([sys.executable, "-c", OWNER, str(tmp_path)])
    words = said(owner) + said(owner) + said(owner)
    bare, server, other, deaf, after = map(int, [word for word in words if word != "deaf"])
    try:
        os.kill(owner.pid, signal.SIGKILL)
        assert all(map(gone, (server, other, bare, deaf)))
        assert mark("any", after) is not None, "it was started outside of the context"
    finally:
        os.kill(after, signal.SIGKILL)


def test_what_hides_its_mark_ends_too_when_all_above_it_are_killed_at_once(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = start([sys.executable, "-c", OWNER, str(tmp_path)])
    words = said(owner) + said(owner) + said(owner)
    bare, server, other, deaf, after = map(int, [word for word in words if word != "deaf"])
    own, looks = mark(str(tmp_path), owner.pid), iter([True])

    def lives_for_one_look(_owner: ProcessMark) -> bool:
        if next(looks, False):
            return True
        for pid in (other, owner.pid):
            os.kill(pid, signal.SIGKILL)
        return False

    monkeypatch.setattr(processes, "lives", lives_for_one_look)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    try:
        assert own is not None
        processes._watch(own)
        assert all(map(gone, (server, other, bare, deaf)))
    finally:
        os.kill(after, signal.SIGKILL)


def test_only_what_dead_owners_of_the_home_left_is_an_orphan(start: Start, tmp_path: Path) -> None:
    home, elsewhere = Home(tmp_path / "home"), Home(tmp_path / "elsewhere")
    own = mark(str(home.root), os.getpid())
    assert own is not None
    left = start(SLEEP, **{OWNER_VARIABLE: dead(home).model_dump_json()})
    others = (
        start(SLEEP, **{OWNER_VARIABLE: own.model_dump_json()}),
        start(SLEEP, **{OWNER_VARIABLE: dead(elsewhere).model_dump_json()}),
        start(SLEEP, **{OWNER_VARIABLE: json.dumps("no mark")}),
        start(SLEEP, PREFECT__SERVER_EPHEMERAL="1", PREFECT_HOME=str(home.prefect)),
        start(SLEEP),
    )
    assert pids(orphans(home)) == {left.pid}
    assert [is_owned(process.pid) for process in (left, *others)] == [True] * 3 + [False] * 3
    assert stop_all(partial(orphans, home)) == [left.pid]
    assert left.wait(10) == -signal.SIGTERM
    assert [process.poll() for process in others] == [None] * len(others)


def test_what_a_killed_stack_left_is_shown_by_status_and_stopped_by_down(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path)
    innocent = start(SLEEP)
    reused = ProcessMark(name=str(home.root), pid=innocent.pid, birth="before")
    left = start(SLEEP, **{OWNER_VARIABLE: reused.model_dump_json(), PART_VARIABLE: "prefect"})
    write_state(home, some_state().model_copy(update={"supervisor": reused}))
    (problem,) = stack_status(home).problems
    assert "left 1 processes; `real down` stops them" in problem
    stop_stack(home, Terminal())
    assert "stopped 1 processes that killed ones had left" in capsys.readouterr().out
    assert left.wait(10) == -signal.SIGTERM
    assert innocent.poll() is None, "it has taken the number of the dead stack"
    assert read_state(home) is None and stack_status(home).problems == ()
    stop_stack(home, Terminal())
    assert "no stack runs" in capsys.readouterr().out


def test_parts_of_a_stack_are_found_apart_with_all_below_them(start: Start, tmp_path: Path) -> None:
    owner = ProcessMark(name=str(tmp_path), pid=1, birth="once")
    value = {OWNER_VARIABLE: owner.model_dump_json()}
    worker = start([sys.executable, "-c", BARE], **value, **{PART_VARIABLE: "worker"})
    server = start(SLEEP, **value, **{PART_VARIABLE: "prefect"})
    child = int(said(worker)[0])
    assert pids(owned_by(owner, "worker")) == {worker.pid, child}
    assert pids(owned_by(owner)) == {worker.pid, child, server.pid}
    assert set(stop_all(partial(owned_by, owner, "worker"))) == {worker.pid, child}
    assert gone(child) and server.poll() is None


@pytest.mark.parametrize(("patience_s", "in_haste"), [(0.2, False), (60, True)])
def test_what_ignores_the_request_is_killed_after_a_while_or_at_once_in_haste(
    start: Start, patience_s: float, in_haste: bool
) -> None:
    deaf = start([sys.executable, "-c", DEAF], REAL_TEST="deaf")
    assert said(deaf) == ["deaf"]

    def find() -> set[psutil.Process]:
        return {psutil.Process(deaf.pid)} if deaf.poll() is None else set()

    assert stop_all(find, patience_s, lambda: in_haste) == [deaf.pid]
    assert deaf.wait(10) == -signal.SIGKILL


def test_a_temporary_server_without_a_mark_is_an_orphan_once_its_starter_is_gone(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    variables = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT_HOME": str(home.prefect)}
    starter = (
        "import os, subprocess; os.setsid(); print(subprocess.Popen("
        f"{SLEEP!r}, stdout=subprocess.DEVNULL, env=os.environ | {variables!r}"
        ").pid, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starter],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    server = int(said(process)[0])
    assert server not in pids(orphans(home))
    process.kill()
    process.communicate()
    try:
        assert server in pids(orphans(home))
        assert server in stop_all(partial(orphans, home)) and gone(server)
    finally:
        if mark("any", server) is not None:
            os.kill(server, signal.SIGKILL)


def test_an_owner_within_an_owner_is_one_and_the_outer_one_ends_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with processes.owning(home) as outer:
        watchers = len(psutil.Process().children())
        with processes.owning(home) as inner:
            assert inner == outer and len(psutil.Process().children()) == watchers
        assert os.environ[OWNER_VARIABLE] == outer.model_dump_json()
    assert OWNER_VARIABLE not in os.environ
