"""SIGTERM, as `timeout`, schedulers and `kill` send it: a command ends in order, within seconds."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from flows.terminal.console import err, show_error

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
GRACE_S = 8.0
"""Seconds after which a command that is to end ends as it is: Docker gives 10, Kubernetes 30."""

_asked = threading.Event()
_said = threading.Lock()
_told = threading.Event()


class StoppedError(SystemExit):
    """A signal has asked the command to end; the code says which."""

    def __init__(self, code: int) -> None:
        """Take note of it."""
        super().__init__(code)
        _asked.set()


def end_on_sigterm() -> None:
    """Have SIGTERM end this command: in order, and at once when that takes long, or on a second.

    Who takes the signal for itself, as the stack does, has it to itself; who ignores it, too.
    """
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # The interpreter handles a signal between two steps; this tells of one while a step lasts.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_guard, args=(reader, writer), daemon=True).start()
    sys.unraisablehook = _lost
    take_sigterm()


def take_sigterm(*_: object) -> None:
    """Take SIGTERM back from a library that took it."""
    signal.signal(signal.SIGTERM, _stop)


def is_stopping() -> bool:
    """Say whether a signal has asked the command to end."""
    return _asked.is_set()


def say_stopped() -> None:
    """Say, once, how to go on."""
    if _said.acquire(blocking=False):
        err.show_cursor()
        show_error("stopped; what is done is kept, and the same command goes on from there")
        _told.set()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise StoppedError(TERMINATED)


def _lost(seen: "sys.UnraisableHookArgs") -> None:
    """Say what is lost in a callback of the garbage collector, but not that a signal has come.

    That ends the command all the same, when its grace is over.
    """
    if not isinstance(seen.exc_value, StoppedError):
        sys.__unraisablehook__(seen)


def _forget() -> None:
    """Let a fork's signals be its own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _guard(reader: socket.socket, _writer: socket.socket) -> None:
    """End the process when its grace is over, or at a second signal."""
    _await_sigterm(reader)
    _after(GRACE_S, _end)
    # Whoever reads what is said may have stopped reading.
    _after(GRACE_S + 1, os._exit, TERMINATED)
    _await_sigterm(reader)
    _end()


def _await_sigterm(reader: socket.socket) -> None:
    while reader.recv(1)[0] != signal.SIGTERM or signal.getsignal(signal.SIGTERM) is not _stop:
        pass


def _end() -> None:
    say_stopped()
    # Another thread may be about to say it.
    _told.wait(1)
    os._exit(TERMINATED)


def _after(seconds: float, what: Callable[..., Any], *arguments: Any) -> None:
    timer = threading.Timer(seconds, what, arguments)
    timer.daemon = True
    timer.start()
