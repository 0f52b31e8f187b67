"""Queries answered in the tests' own process, where what is patched holds for them too."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from storage.sql.engine import Engine
from storage.sql.process import Query


def answer_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let catalogs ask an engine in this process."""
    monkeypatch.setattr("storage.sql.catalog.ask", _ask)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Press Ctrl-C while the context lasts; libraries of earlier tests may have taken it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def _ask(query: Query) -> Iterator[tuple[str, Any]]:
    messages: list[tuple[str, Any]] = []
    Engine(query, messages.append).answer()
    yield from messages
