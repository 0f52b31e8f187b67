"""A run ends, with one error, once the stack that it joined is gone; and not before."""

import subprocess
import sys
from pathlib import Path

from storage.paths import Home
from storage.stack_state import only_stack, write_state
from tests.terminal import ROOT, environment
from tests.unit.stack_states import some_state

RUN = """
import sys
from flows.terminal.environment import use_home
from flows.running.run_watch import needs_watched

with needs_watched(use_home(None)):
    print("runs", flush=True)
    sys.stdin.readline()
print("went on")
"""


def started(home: Home, api_url: str) -> "subprocess.Popen[str]":
    """Start a run that is recorded at an address, and wait until it is watched."""
    run = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(home.root, PREFECT_API_URL=api_url),
    )
    assert run.stdout is not None and run.stdout.readline() == "runs\n"
    return run


def test_a_run_ends_with_one_error_when_the_stack_that_it_joined_does(tmp_path: Path) -> None:
    home, state = Home(tmp_path / "home"), some_state()
    with only_stack(home):
        write_state(home, state)
        joined = started(home, state.api_url)
        other = started(home, "http://127.0.0.1:9/api")
        assert joined.poll() is None
    assert joined.wait(60) == 2
    said, error = joined.communicate()
    assert said == ""
    assert error.count("─ error ") == 1 and "Traceback" not in error
    assert f"joined ({state.prefect_url}) has ended" in " ".join(error.replace("│", " ").split())
    assert other.communicate("\n", timeout=60) == ("went on\n", "")
    assert other.returncode == 0
