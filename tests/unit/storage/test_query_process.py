import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ASK = """
import sys
from pathlib import Path
from storage.sql.process import Query, ask, start_early
start_early()
print("started", flush=True)
sys.stdin.readline()
for message in ask(Query(Path(sys.argv[1]), sys.argv[2], None, 600.0, 2000)):
    if message[0] != "batch":
        print(message[0], flush=True)
sys.stdin.readline()
"""
NO_END = "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 3"
WITHIN_A_FUNCTION = "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))"

Asker = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Asker]:
    """Start a process that asks for a statement once it is told to."""
    processes: list[subprocess.Popen[str]] = []

    def start(sql: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", ASK, str(tmp_path), sql],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def works(process: psutil.Process) -> bool:
    """Wait until a process computes."""
    before = process.cpu_times().user
    deadline = time.monotonic() + 60
    while process.cpu_times().user < before + 1.0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("sql", [NO_END, WITHIN_A_FUNCTION])
def test_a_query_ends_with_who_asked_for_it_when_that_is_killed(asker: Asker, sql: str) -> None:
    process = asker(sql)
    (query,) = psutil.Process(process.pid).children()
    go_on(process)
    assert works(query)
    process.kill()
    query.wait(30)
    assert not query.is_running()


def test_a_process_that_waits_for_its_next_query_ends_too(asker: Asker) -> None:
    process = asker("SELECT 1")
    (query,) = psutil.Process(process.pid).children()
    go_on(process)
    assert process.stdout is not None and process.stdout.readline() == "schema\n"
    process.kill()
    query.wait(30)
    assert not query.is_running()


def test_the_systems_alarm_ends_a_query_whatever_it_does(asker: Asker) -> None:
    process = asker(WITHIN_A_FUNCTION)
    (query,) = psutil.Process(process.pid).children()
    go_on(process)
    assert works(query)
    query.send_signal(signal.SIGALRM)
    query.wait(30)
    go_on(process)
    assert process.wait(30) == 1, "the asker is told, by an error"
