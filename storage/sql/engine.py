"""DuckDB over the views of a home, in a process of its own (`storage.sql.process`).

A query cannot reach files, settings or the network: the engine has no access to them, whatever the
statement says. Its time and its memory are limited by the system, which kills the process.
"""

import logging
import os
import re
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from storage.errors import QueryError, StorageError
from storage.paths import Home
from storage.repeating import repeating
from storage.runs.run import mark_dead_runs
from storage.sql.process import GRACE_SECONDS, Query, out_of_time
from storage.sql.types import carried
from storage.sql.view_sources import VIEWS, Loaded, load_views
from storage.tables.seals import damaged

Send = Callable[[tuple[str, Any]], None]
Part = TypeVar("Part")

_ALLOWED = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI)
_READ_ONLY = (
    "SQL here is read-only, one statement at a time: SELECT (also WITH ... SELECT and PIVOT), "
    "DESCRIBE, SHOW TABLES, SUMMARIZE or EXPLAIN"
)
# A batch of activations has up to 100 kB a row.
_BATCH_ROWS = 8_192
_POLL_SECONDS = 0.05
# Memory that the engine does not count: batches on their way, stacks of threads, the heap's slack.
_UNCOUNTED_MB = 1_000
_MB = 1_000_000


log = logging.getLogger(__name__)


class _SwappedError(Exception):
    """Files that a query was reading were merged, or are damaged: it has to begin again."""


def serve(handle: int) -> None:
    """Answer queries that come over the connection ``handle`` until its other side is closed.

    Messages of an answer: ``schema`` (what came before no longer counts) and ``batch``, or ``rows``
    (their number) and ``text``; ``warning``, ``error``, and ``done`` at its end.
    """
    with Connection(handle) as connection:
        base, parent = _data_size(), os.getppid()
        logging.basicConfig(handlers=[_Warnings(connection.send)], level=logging.WARNING)
        while True:
            try:
                query = connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # nothing is left to be tidied up
            _limit_memory(base, query.memory_mb)
            # The system's own alarm ends the process whatever it does, also without its parent.
            signal.setitimer(signal.ITIMER_REAL, query.timeout + GRACE_SECONDS)
            try:
                with repeating(partial(_end_without, parent), _POLL_SECONDS):
                    Engine(query, connection.send).answer()
            except StorageError as error:
                connection.send(("error", error))
            except Exception as error:  # whatever a statement makes the binding raise
                connection.send(("error", QueryError(f"{type(error).__name__}: {error}")))
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(("done", None))


class Engine:
    """A query over one home's views, and its limits."""

    def __init__(self, query: Query, send: Send) -> None:
        """Answer ``query`` by ``send``."""
        self._asked = query
        self._home = Home(query.root)
        self._send = send
        self._end = monotonic() + query.timeout
        self._left_out: set[Path] = set()

    def answer(self) -> None:
        """Run the statement and send its result; see `storage.sql.catalog.Catalog.query`."""
        mark_dead_runs(self._home)
        while True:
            try:
                return self._query()
            except _SwappedError:
                continue

    def _query(self) -> None:
        with duckdb.connect(":memory:", config=self._settings()) as connection:
            _check_statement(connection, self._asked.sql)
            loaded = self._load(connection)
            # From here on no statement reaches a file, and none can take that back.
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            # Copies of tables could be changed, and a change would look as if it was done.
            connection.execute("BEGIN TRANSACTION READ ONLY")
            try:
                with repeating(partial(self._interrupt, connection), _POLL_SECONDS):
                    self._fetch(connection)
            except (duckdb.OutOfMemoryException, MemoryError) as error:
                raise self._out_of_memory() from error
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if monotonic() > self._end:
                    raise QueryError(out_of_time(self._asked.timeout)) from error
                unread = isinstance(
                    error, duckdb.InvalidInputException | pa.ArrowException | OSError
                )
                if loaded.swapped() or (unread and self._leave_out(loaded)):
                    raise _SwappedError from error
                raise QueryError(_explain(error)) from error

    def _settings(self) -> dict[str, str | bool | int | float | list[str]]:
        return {
            "memory_limit": f"{self._asked.memory_mb}MB",
            "temp_directory": "",
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }

    def _load(self, connection: duckdb.DuckDBPyConnection) -> Loaded:
        """Load the tables that the statement names, or all where it names none (SHOW TABLES)."""
        connection.execute("SET TimeZone = 'UTC'")
        sql = self._asked.sql.lower()
        named = [view for view in VIEWS if view in sql] or list(VIEWS)
        try:
            return load_views(connection, self._home, named, self._left_out)
        except (duckdb.OutOfMemoryException, MemoryError) as error:
            raise self._out_of_memory() from error

    def _leave_out(self, loaded: Loaded) -> bool:
        """Leave damaged files out from here on, with a warning; say whether there were any."""
        for path in (found := loaded.damaged()):
            log.warning("left out: %s", damaged(path, "it is not as it was written"))
        self._left_out.update(found)
        return bool(found)

    def _fetch(self, connection: duckdb.DuckDBPyConnection) -> None:
        relation = connection.sql(self._asked.sql, params=self._asked.parameters)
        if relation is None:
            raise QueryError(f"the statement has no result; {_READ_ONLY}")
        relation, kinds = carried(relation)
        reader = relation.to_arrow_reader(_BATCH_ROWS)
        fields = zip(reader.schema, kinds, strict=True)
        schema = pa.schema([field.with_metadata(kind) for field, kind in fields])
        batches = self._limited(reader, lambda batch: int(batch.nbytes))
        if self._asked.layout is None:
            self._send(("schema", schema.serialize().to_pybytes()))
            for batch in batches:
                self._send(("batch", batch.serialize().to_pybytes()))
        else:
            from storage.sql.formats import text_of  # who asks for batches starts sooner without it

            # All rows are read before the first text is made: no error comes after half a table.
            table = pa.Table.from_batches(list(batches), reader.schema)
            self._send(("rows", table.num_rows))
            for text in self._limited(text_of(table, **self._asked.layout), len):
                self._send(("text", text))

    def _limited(self, parts: Iterable[Part], size: Callable[[Part], int]) -> Iterator[Part]:
        total = 0
        for part in parts:
            total += size(part)
            if total > self._asked.memory_mb * _MB:
                raise QueryError(
                    f"the result is larger than {self._asked.memory_mb} MB; add LIMIT, or choose "
                    "columns"
                )
            yield part

    def _interrupt(self, connection: duckdb.DuckDBPyConnection) -> None:
        # Again and again: an interrupt between two phases of a query is forgotten.
        if monotonic() > self._end:
            connection.interrupt()

    def _out_of_memory(self) -> QueryError:
        return QueryError(
            f"the query needs more than {self._asked.memory_mb} MB of memory; narrow it with "
            "WHERE, or choose columns"
        )


class _Warnings(logging.Handler):
    """Hands what is logged to who asked, as ``warning``."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(("warning", (record.name, record.getMessage())))


def _end_without(parent: int) -> None:
    """End this process once its parent has: nobody waits for an answer."""
    if os.getppid() != parent:
        os._exit(1)


def _data_size() -> int | None:
    """Return the bytes that this process has for data, as RLIMIT_DATA counts them; None elsewhere.

    Arrow's and DuckDB's allocators reserve a gigabyte before the first query.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"VmData:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else None


def _limit_memory(base: int | None, memory_mb: int) -> None:
    if base is None:
        return
    most = base + (memory_mb + _UNCOUNTED_MB) * _MB
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _check_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse what is not one reading statement.

    This is for a clear message; safety comes from the engine's lost access, since a statement that
    reads may hold one that writes.
    """
    try:
        kinds = [statement.type for statement in connection.extract_statements(sql)]
    except duckdb.Error as error:
        raise QueryError(_explain(error)) from error
    except ValueError as error:  # a kind that DuckDB has and its binding does not know
        raise QueryError(f"found a statement of an unknown kind; {_READ_ONLY}") from error
    if len(kinds) != 1:
        raise QueryError(f"found {len(kinds)} statements; {_READ_ONLY}")
    if kinds[0] not in _ALLOWED:
        raise QueryError(f"found {kinds[0].name}; {_READ_ONLY}")


def _explain(error: Exception) -> str:
    text = str(error).strip()
    views = ", ".join(VIEWS)
    if isinstance(error, duckdb.CatalogException) and text.startswith("Catalog Error: Table"):
        return f"{text.splitlines()[0]} The views are: {views}"
    if isinstance(error, duckdb.PermissionException):
        return f"{text.splitlines()[0]}. {_READ_ONLY}"
    if isinstance(error, duckdb.TransactionException):
        return f"the statement would change a table; {_READ_ONLY}"
    return text
