"""Queries answered in the tests' own process, where what is patched holds for them too."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.paths import Home
from storage.query_engine import Engine


def answer_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let catalogs ask an engine in this process."""
    monkeypatch.setattr("storage.catalog.ask", _ask)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Press Ctrl-C while the context lasts."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def _ask(request: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    messages: list[tuple[str, Any]] = []
    engine = Engine(Home(Path(request["root"])), request["memory_mb"])
    engine.answer(request["sql"], request["timeout"], request["parameters"], messages.append)
    yield from messages
