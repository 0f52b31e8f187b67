"""Doing something again and again beside other work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def repeating(work: Callable[[], object], every_s: float) -> Iterator[None]:
    """Have a thread call ``work`` every so many seconds while the context lasts."""
    done = Event()

    def repeat() -> None:
        while not done.wait(every_s):
            work()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
