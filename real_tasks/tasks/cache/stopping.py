"""Ending what tasks of this process do before it is done: a thread cannot be killed, but told."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident

_working: set[int] = set()
_lock = Lock()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let `stop_tasks` end what this thread does while the context lasts."""
    with _lock:
        _working.add(get_ident())
    try:
        yield
    finally:
        with _lock:
            _working.discard(get_ident())


def stop_tasks() -> None:
    """Raise SystemExit in every task, once in each: as soon as it is back in Python's own code."""
    with _lock:
        while _working:
            thread = ctypes.c_ulong(_working.pop())
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
