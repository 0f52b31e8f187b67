"""Stopping a stack from outside, and cleaning up after stacks and runs that were killed."""

import time
from functools import partial

import psutil

from flows.running.processes import lives, orphans, stop_all
from flows.stack.view import Terminal
from real_tasks.vocabulary.errors import WorkFailedError
from storage.paths import Home
from storage.stack_state import is_held, only_stack, read_state, remove_state

# A worker has 15 s to end its runs, then the servers have 8 s.
_TIMEOUT_S = 60.0
_POLL_S = 0.2


def stop_stack(home: Home, terminal: Terminal) -> None:
    """Stop the stack of a home, wait until nothing of it is left, and stop what killed runs left.

    Raises:
        WorkFailedError: it does not end.
    """
    _stop_orphans(home, terminal)
    state = read_state(home)
    if state is None and not is_held(home):
        terminal.say(f"no stack runs on {home.root}")
    elif state is not None and is_held(home) and lives(state.supervisor):
        psutil.Process(state.supervisor.pid).terminate()
        _await_end(home, state.supervisor.pid, terminal)
        terminal.say(f"stopped the stack of {home.root}")
    else:
        with only_stack(home):
            clean_dead(home, terminal)


def clean_dead(home: Home, terminal: Terminal) -> None:
    """Stop what killed stacks and runs left on a home, its lock being held, and say so."""
    _stop_orphans(home, terminal)
    if read_state(home) is not None:
        terminal.say(f"the last stack of {home.root} was killed")
    remove_state(home)


def _stop_orphans(home: Home, terminal: Terminal) -> None:
    if stopped := stop_all(partial(orphans, home)):
        terminal.say(f"stopped {len(stopped)} processes that killed ones had left")


def _await_end(home: Home, pid: int, terminal: Terminal) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while is_held(home):
        terminal.wait(f"stopping the stack of process {pid}")
        if time.monotonic() > deadline:
            raise WorkFailedError(
                f"the stack does not end: process {pid} still runs after {_TIMEOUT_S:.0f} s. "
                f"`kill -9 {pid}` ends it and its processes, and `real down` then cleans up"
            )
        time.sleep(_POLL_S)
    terminal.wait("")
