"""Signals at random moments: to a run, and to a stack with a run in it."""

import os
import shutil
import signal
import subprocess
import time
from random import Random

from storage.paths import Home
from tests.drill.homes import (
    Undisturbed,
    await_words,
    check_goes_on,
    ended,
    ended_in_words,
    real,
    require,
    runs,
    said_in,
    start,
    tail,
)
from tests.terminal import RUN

SOON_S = 30
"""Seconds in which a run that is asked to end must end, on a machine that is busy."""
GO_ON = "the same command goes on from there"
GROUP = ("setsid",)
"""What gives a command a group of processes of its own, as `timeout` and schedulers do."""


def killed_run(home: Home, undisturbed: Undisturbed, draw: Random) -> str:
    """Kill a run at a moment of its time; a further one must complete."""
    process, where = _running(home, undisturbed, draw)
    process.kill()
    process.wait()
    check_goes_on(home, undisturbed)
    return where


def terminated_run(home: Home, undisturbed: Undisturbed, draw: Random) -> str:
    """Ask a run, or all its processes, to end; it must, soon, and a further one must complete."""
    process, where = _running(home, undisturbed, draw)
    send, whom = draw.choice([(os.kill, "its process"), (os.killpg, "its group")])
    begun = time.monotonic()
    send(process.pid, signal.SIGTERM)
    status, said = ended(home, process, "run")
    took = time.monotonic() - begun
    require(took < SOON_S, f"it ended only after {took:.0f} s, {where}: {tail(said)}")
    # Before the command has begun, Python itself ends it.
    early = status == -signal.SIGTERM and not said
    require(early or status == 128 + signal.SIGTERM, f"it ended with {status}, {where}")
    require(early or said.count(GO_ON) == 1, f"how to go on is not said once: {tail(said)}")
    require("Traceback" not in said, f"a traceback: {tail(said)}")
    left = [run for run in runs(home) if run["status"] not in ("crashed", "completed")]
    require(not left, f"it is recorded as {left}")
    check_goes_on(home, undisturbed)
    return f"{where}, SIGTERM to {whom}, ended after {took:.0f} s"


def killed_stack(home: Home, undisturbed: Undisturbed, moment: float) -> None:
    """Kill a stack while a run from a terminal is on it; after `real down` a run must complete."""
    stack = start(home, "up", "--port", "0", "--mlflow-port", "0")
    try:
        await_words(home, stack, "up", "Ctrl-C stops")
        run = start(home, *RUN)
        time.sleep(moment * undisturbed.seconds)
    finally:
        stack.kill()
        stack.wait()
    ended_in_words(home, run, undisturbed.seconds)
    status, said = real(home, "down")
    require(status == 0, f"`real down` ended with {status}: {tail(said)}")
    check_goes_on(home, undisturbed)


def _running(
    home: Home, undisturbed: Undisturbed, draw: Random
) -> tuple["subprocess.Popen[bytes]", str]:
    """Start a run, and wait until a moment within it; return it, and where it is.

    A moment after its end counts for nothing: another is drawn, for another run.
    """
    while True:
        process = start(home, *RUN, under=GROUP)
        moment = draw.random()
        time.sleep(moment * undisturbed.seconds)
        if process.poll() is None:
            *_, last = "nothing said", *said_in(home, "run").read_text().splitlines()
            return process, f"at {moment:.0%} ({last.strip()})"
        require(process.returncode == 0, f"a run ended with {process.returncode}")
        shutil.rmtree(home.root)
