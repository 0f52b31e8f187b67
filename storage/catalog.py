"""SQL over everything that runs have left: DuckDB in memory, over copies and scans of the tables.

A query cannot reach files, settings or the network: the engine has no access to them, whatever the
statement says. Small tables are copied into memory first; large ones and activations are scanned
through Arrow, which reads only the columns and the parts that a query needs.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import duckdb
import pyarrow as pa

from storage.errors import StorageError
from storage.paths import Home
from storage.runs import mark_dead_runs
from storage.seals import damaged
from storage.sharing import pull
from storage.view_sources import VIEWS, Loaded, describe, load_views

DEFAULT_TIMEOUT = 30.0
"""Seconds that a query may take."""

Parameters = Mapping[str, str | int | float | bool | None]

_ALLOWED = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI)
_READ_ONLY = (
    "SQL here is read-only, one statement at a time: SELECT (also WITH ... SELECT and PIVOT), "
    "DESCRIBE, SHOW TABLES, SUMMARIZE or EXPLAIN"
)
_BATCH_ROWS = 65_536
_POLL_SECONDS = 0.05


log = logging.getLogger(__name__)


class QueryError(StorageError):
    """A query is wrong, not allowed, or too expensive."""


class QueryStoppedError(QueryError):
    """A query was stopped by who asked it."""


class _SwappedError(Exception):
    """Files that a query was reading were merged, or are damaged: it has to begin again."""


class Catalog:
    """The SQL views of one home. Every query sees the files as they are when it starts."""

    def __init__(self, home: Home, memory_mb: int = 2000) -> None:
        """Serve ``home``; it may be empty or not there.

        Args:
            home: where the tables and the artifacts are.
            memory_mb: megabytes that the engine may use for the tables and the query; a result may
                be as large again.
        """
        self._home = home
        self._memory_mb = memory_mb
        self._left_out: set[Path] = set()

    def query(
        self,
        sql: str,
        timeout: float = DEFAULT_TIMEOUT,
        parameters: Parameters | None = None,
        cancel: Event | None = None,
    ) -> pa.Table:
        """Run one read-only SQL statement over the views that ``describe`` lists.

        Args:
            sql: the statement, in DuckDB's dialect.
            timeout: seconds after which it is stopped.
            parameters: values of the statement's parameters, as ``$name``.
            cancel: set by another thread, it stops the query.

        Raises:
            QueryError: the statement is wrong, would change something or reach outside, takes
                longer than ``timeout``, or needs more memory than the limit.
            QueryStoppedError: ``cancel`` was set.
            StoreUnavailableError: the store behind the home cannot be reached.
        """
        pull(self._home)
        mark_dead_runs(self._home)
        while True:
            try:
                return self._query(sql, timeout, parameters, cancel or Event())
            except _SwappedError:
                continue

    def describe(self, view: str | None = None) -> pa.Table:
        """Return the columns of one view or all: ``view``, ``column``, ``type``, ``description``.

        Raises:
            QueryError: there is no such view.
        """
        if view is not None and view.lower() not in VIEWS:
            raise QueryError(f"no view is called {view!r}; there are {', '.join(VIEWS)}")
        return describe([view.lower()] if view else VIEWS)

    def _query(
        self, sql: str, timeout: float, parameters: Parameters | None, cancel: Event
    ) -> pa.Table:
        with duckdb.connect(":memory:", config=self._settings()) as connection:
            _check_statement(connection, sql)
            loaded = self._load(connection, sql)
            # From here on no statement reaches a file, and none can take that back.
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            limit = _Limit(timeout, cancel)
            try:
                with limit.on(connection):
                    return self._fetch(connection, sql, parameters)
            except duckdb.OutOfMemoryException as error:
                raise self._out_of_memory() from error
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                limit.check(error)
                unread = isinstance(
                    error, duckdb.InvalidInputException | pa.ArrowException | OSError
                )
                if loaded.swapped() or (unread and self._leave_out(loaded)):
                    raise _SwappedError from error
                raise QueryError(_explain(error)) from error

    def _settings(self) -> dict[str, str | bool | int | float | list[str]]:
        return {
            "memory_limit": f"{self._memory_mb}MB",
            "temp_directory": "",
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }

    def _load(self, connection: duckdb.DuckDBPyConnection, sql: str) -> Loaded:
        """Load the tables that the statement names, or all where it names none (SHOW TABLES)."""
        connection.execute("SET TimeZone = 'UTC'")
        named = [view for view in VIEWS if re.search(view, sql, re.IGNORECASE)] or list(VIEWS)
        try:
            return load_views(connection, self._home, named, self._left_out)
        except duckdb.OutOfMemoryException as error:
            raise self._out_of_memory() from error

    def _leave_out(self, loaded: Loaded) -> bool:
        """Leave damaged files out from here on, with a warning; say whether there were any."""
        found = loaded.damaged()
        for path in found:
            log.warning("left out: %s", damaged(path, "it is not as it was written"))
        self._left_out.update(found)
        return bool(found)

    def _fetch(
        self, connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters | None
    ) -> pa.Table:
        """Collect the result batch by batch: results are not counted in the engine's own limit."""
        relation = connection.sql(sql, params=parameters)
        if relation is None:
            raise QueryError(f"the statement has no result; {_READ_ONLY}")
        reader = relation.to_arrow_reader(_BATCH_ROWS)
        batches, size = [], 0
        for batch in reader:
            batches.append(batch)
            size += batch.nbytes
            if size > self._memory_mb * 1_000_000:
                raise QueryError(
                    f"the result is larger than {self._memory_mb} MB; add LIMIT, or choose columns"
                )
        return pa.Table.from_batches(batches, schema=reader.schema)

    def _out_of_memory(self) -> QueryError:
        return QueryError(
            f"the query needs more than {self._memory_mb} MB of memory; narrow it with WHERE, or "
            "choose columns"
        )


def _check_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse what is not one reading statement.

    This is for a clear message; safety comes from the engine's lost access, since a statement that
    reads may hold one that writes.
    """
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(_explain(error)) from error
    if len(statements) != 1:
        raise QueryError(f"found {len(statements)} statements; {_READ_ONLY}")
    if statements[0].type not in _ALLOWED:
        raise QueryError(f"found {statements[0].type.name}; {_READ_ONLY}")


class _Limit:
    """Stops what runs on a connection when its time is over, or somebody asks for it."""

    def __init__(self, seconds: float, cancel: Event) -> None:
        self._seconds = seconds
        self._cancel = cancel
        self._over = Event()

    @contextmanager
    def on(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Watch the connection while the context lasts."""
        done = Event()

        def watch() -> None:
            end = monotonic() + self._seconds
            # More than once: an interrupt between two phases of a query is forgotten.
            while not done.wait(_POLL_SECONDS):
                if monotonic() > end:
                    self._over.set()
                if self._over.is_set() or self._cancel.is_set():
                    connection.interrupt()

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def check(self, error: Exception) -> None:
        """Raise what says why the query was stopped, if it was."""
        if self._cancel.is_set():
            raise QueryStoppedError("the query was stopped") from error
        if self._over.is_set():
            raise QueryError(
                f"the query was stopped after {self._seconds:g} s; narrow it with WHERE, allow "
                "more time (--timeout SECONDS), or merge the files of old runs (`real compact`)"
            ) from error


def _explain(error: Exception) -> str:
    text = str(error).strip()
    views = ", ".join(VIEWS)
    if isinstance(error, duckdb.CatalogException) and text.startswith("Catalog Error: Table"):
        return f"{text.splitlines()[0]} The views are: {views}"
    if isinstance(error, duckdb.PermissionException):
        return f"{text.splitlines()[0]}. {_READ_ONLY}"
    return text
