"""The process that queries run in: started once, ended with its query where that must stop.

DuckDB checks its limits between the steps of a query, not within a function, so what a statement
may take in time and memory holds only for a process of its own, by the system's limits. This side
of it imports nothing heavy: the process starts while others are still importing.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from storage.errors import QueryError

GRACE_SECONDS = 1.0
"""What a query has beyond its time to end by itself, before its process is killed."""

Parameters = Mapping[str, str | int | float | bool | None]

_PROGRAM = "import sys; from storage.sql.engine import serve; serve(int(sys.argv[1]))"


@dataclass(frozen=True)
class Query:
    """What is asked for, and its limits.

    ``root`` is the home's, absolute; ``timeout`` seconds are for the making of text too;
    ``memory_mb`` the engine may use, and as much the result; ``layout`` has the arguments of
    `storage.sql.formats.text_of`, and None asks for Arrow's batches.
    """

    root: Path
    sql: str
    parameters: Parameters | None
    timeout: float
    memory_mb: int
    layout: Mapping[str, Any] | None = None


class QueryProcess:
    """A process that answers one query after another."""

    def __init__(self) -> None:
        """Start it, in a session of its own: Ctrl-C is its asker's to handle."""
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # The same modules as here, and none of the folder that it is in.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def ask(self, query: Query) -> Iterator[tuple[str, Any]]:
        """Send a query; yield the kind and the content of each message until it is ``done``.

        Raises:
            QueryError: it ended the process: its time or its memory was over.
        """
        try:
            self._connection.send(query)
            while (message := self._connection.recv())[0] != "done":
                yield message
        except (EOFError, OSError):
            raise QueryError(_reason(self._process.wait(), query)) from None

    def kill(self) -> None:
        """End it now, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._connection.close()


# Those that wait for their next query; what a fork inherits is its parent's alone.
_idle: list[QueryProcess] = []
os.register_at_fork(after_in_child=_idle.clear)


def start_early() -> None:
    """Start a process for the first query, while the caller goes on."""
    if not _idle:
        _idle.append(QueryProcess())


def ask(query: Query) -> Iterator[tuple[str, Any]]:
    """Yield the messages that answer a query; see `storage.sql.engine` and `QueryProcess.ask`.

    Left early, by Ctrl-C or an error, the query's process is killed.
    """
    process = _idle.pop() if _idle else QueryProcess()
    try:
        yield from process.ask(query)
    except BaseException:
        process.kill()
        raise
    _idle.append(process)


def _reason(status: int, query: Query) -> str:
    if status == -signal.SIGALRM:
        return out_of_time(query.timeout)
    if status < 0:
        return (
            f"the query ended its process ({signal.Signals(-status).name}): it needs more than "
            f"{query.memory_mb} MB of memory, or is nested too deeply; nothing was changed"
        )
    return f"the process that answers queries ended with status {status}; is DuckDB installed?"


def out_of_time(seconds: float) -> str:
    """Say that a query took longer than it may."""
    return (
        f"the query was stopped after {seconds:g} s; narrow it with WHERE, allow more time "
        "(--timeout SECONDS), or merge the files of old runs (`real compact`)"
    )
