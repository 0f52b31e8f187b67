"""SIGTERM ends a command in order, whatever it does; and where that takes long, as it is."""

import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.terminal import ROOT

COMMAND = """
import signal, sys, time
from hashlib import pbkdf2_hmac
from flows import cli
from flows.running import signals
{further}

def begun():
    print("runs", flush=True)

def command(_arguments):
    try:
        {work}
    finally:
        print("tidied", flush=True)
        {rest}

signals.GRACE_S = {grace}
cli.app = command
cli.main()
"""
WAITS = "time.sleep(300)"
DEAF = "pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
"""One step of the interpreter, which no signal interrupts, for many minutes."""


HELD = f"""
class Held:
    def __del__(self):
        begun(); {WAITS}
"""
"""The interpreter loses what is raised while an object goes."""


def told_to_end(
    number: int = signal.SIGTERM,
    *,
    work: str = f"begun(); {WAITS}",
    rest: str = "pass",
    further: str = "",
    grace: float = 200.0,
    again: bool = False,
) -> tuple[int, str, str]:
    """Start a command, send it a signal, or two, and return how it ended and what it said."""
    program = COMMAND.format(work=work, rest=rest, further=further, grace=grace)
    command = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert command.stdout is not None and command.stdout.readline() == "runs\n"
    command.send_signal(number)
    if again:
        assert command.stdout.readline() == "tidied\n"
        command.terminate()
    said, error = command.communicate(timeout=120)
    return command.returncode, said, " ".join(error.split())


def one_sentence(error: str) -> bool:
    go_on = "stopped; what is done is kept, and the same command goes on from there"
    return error.count("─ error ") == error.count(go_on) == 1 and "Traceback" not in error


def test_a_command_ends_in_order_and_says_how_to_go_on() -> None:
    status, said, error = told_to_end()
    assert (status, said) == (143, "tidied\n")
    assert one_sentence(error), error


@pytest.mark.parametrize(
    "how",
    [
        {"rest": WAITS},
        {"work": f"begun(); {DEAF}"},
        {"work": f"Held(); {WAITS}", "further": HELD},
    ],
    ids=["tidying", "deaf", "in a callback"],
)
def test_one_that_does_not_come_to_its_end_is_ended_after_a_grace(how: dict[str, Any]) -> None:
    status, _, error = told_to_end(grace=0.2, **how)
    assert status == 143
    assert one_sentence(error), error


def test_a_second_signal_ends_it_at_once() -> None:
    status, _, error = told_to_end(rest=DEAF, again=True)
    assert status == 143
    assert one_sentence(error), error


def test_ctrl_c_of_a_run_ends_it_with_its_own_status_and_says_how_to_go_on() -> None:
    further = "from flows.commands import launch"
    work = f"with launch._two_step_interrupt(): begun(); {WAITS}"
    status, said, error = told_to_end(signal.SIGINT, work=work, further=further)
    assert (status, said) == (130, "tidied\n")
    assert one_sentence(error), error


def test_who_was_started_to_ignore_the_signal_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a child inherits that
    try:
        status, said, _ = told_to_end(work="begun(); time.sleep(1)")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (status, said) == (0, "tidied\n")


def test_a_signal_to_a_fork_is_the_forks_alone() -> None:
    fork = "child = os.fork() or time.sleep(300); time.sleep(1); os.kill(child, 15)"
    work = f"{fork}; assert os.wait()[1] == 15; time.sleep(3); begun(); {WAITS}"
    status, _, error = told_to_end(work=work, further="import os", grace=2.0)
    assert status == 143
    assert one_sentence(error), error
