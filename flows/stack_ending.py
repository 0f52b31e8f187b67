"""Stopping a stack from outside, and cleaning up after one that was killed."""

import signal
import time

from flows.run_processes import stop_orphans
from flows.stack_processes import lives, send, stop_left
from flows.stack_view import Terminal
from real_tasks.errors import WorkFailedError
from storage.paths import Home
from storage.stack_state import StackState, is_held, only_stack, read_state, remove_state

# A worker has 15 s to end its runs, then the servers have 8 s.
_TIMEOUT_S = 60.0
_POLL_S = 0.2


def stop_stack(home: Home, terminal: Terminal) -> None:
    """Stop the stack of a home, wait until nothing of it is left, and stop what killed runs left.

    Raises:
        WorkFailedError: it does not end.
    """
    if left := stop_orphans(home):
        terminal.say(f"stopped {len(left)} processes that killed runs had left")
    state = read_state(home)
    if is_held(home) and state is not None and lives(state.supervisor):
        send(state.supervisor.pid, signal.SIGTERM)
        _await_end(home, state, terminal)
        terminal.wait("")
        terminal.say(f"stopped the stack of {home.root}")
        return
    with only_stack(home):
        lines = clean_dead(home)
    for line in lines or [f"no stack runs on {home.root}"]:
        terminal.say(line)


def clean_dead(home: Home) -> list[str]:
    """Stop what a killed stack left, the home's lock being held; return what was done, in words."""
    state = read_state(home)
    if state is None:
        return []
    stopped = stop_left(state.stack_id, [state.supervisor, *state.processes])
    remove_state(home)
    what = f"stopped {len(stopped)} processes that it left" if stopped else "it left no process"
    return [f"the last stack of {home.root} was killed; {what}"]


def _await_end(home: Home, state: StackState, terminal: Terminal) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while is_held(home):
        terminal.wait(f"stopping the stack of process {state.supervisor.pid}")
        if time.monotonic() > deadline:
            raise WorkFailedError(
                f"the stack does not end: process {state.supervisor.pid} still runs after "
                f"{_TIMEOUT_S:.0f} s. `kill -9 {state.supervisor.pid}` ends it and its processes, "
                "and `real down` then cleans up"
            )
        time.sleep(_POLL_S)
