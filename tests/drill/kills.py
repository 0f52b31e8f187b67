"""`kill -9` at random moments: of a run, and of a stack with a run in it."""

import time

from storage.paths import Home
from tests.drill.homes import (
    LIMIT_S,
    Undisturbed,
    check_goes_on,
    ended_in_words,
    real,
    require,
    said_in,
    start,
    tail,
)
from tests.terminal import RUN


def killed_run(home: Home, undisturbed: Undisturbed, moment: float) -> None:
    """Kill a run at a moment of its time; a further one must complete."""
    process = start(home, *RUN)
    time.sleep(moment * undisturbed.seconds)
    process.kill()
    process.wait()
    check_goes_on(home, undisturbed)


def killed_stack(home: Home, undisturbed: Undisturbed, moment: float) -> None:
    """Kill a stack while a run from a terminal is on it; after `real down` a run must complete."""
    stack = start(home, "up", "--port", "0", "--mlflow-port", "0")
    try:
        deadline = time.monotonic() + LIMIT_S
        while "Ctrl-C stops" not in (said := said_in(home, "up").read_text()):
            require(stack.poll() is None, f"`real up` ended: {tail(said)}")
            require(time.monotonic() < deadline, f"`real up` was not ready in {LIMIT_S} s")
            time.sleep(0.2)
        run = start(home, *RUN)
        time.sleep(moment * undisturbed.seconds)
    finally:
        stack.kill()
        stack.wait()
    ended_in_words(home, run, undisturbed.seconds)
    status, said = real(home, "down")
    require(status == 0, f"`real down` ended with {status}: {tail(said)}")
    check_goes_on(home, undisturbed)
