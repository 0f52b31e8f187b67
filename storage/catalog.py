"""SQL over everything that runs have left: DuckDB in memory, over copies and scans of the tables.

A query cannot reach files, settings or the network, and its time and memory are limited whatever it
does: it runs in a process of its own (`storage.query_engine`). Small tables are copied into memory
first; large ones and activations are scanned through Arrow, which reads only the columns and the
parts that a query needs.
"""

import logging
from collections.abc import Mapping

import pyarrow as pa

from storage.errors import QueryError
from storage.paths import Home
from storage.query_process import ask

DEFAULT_TIMEOUT = 30.0
"""Seconds that a query may take."""

Parameters = Mapping[str, str | int | float | bool | None]

LONGEST_STATEMENT = 10_000_000
"""Characters that a statement may have."""


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

    def query(
        self, sql: str, timeout: float = DEFAULT_TIMEOUT, parameters: Parameters | None = None
    ) -> pa.Table:
        """Run one read-only SQL statement over the views that ``describe`` lists.

        Args:
            sql: the statement, in DuckDB's dialect.
            timeout: seconds after which it is stopped, the reading of tables included.
            parameters: values of the statement's parameters, as ``$name``.

        Returns:
            The rows. Values of types that Arrow cannot hold (intervals, times with an offset, ...)
            are texts; their columns' metadata names the type (`storage.sql_types.SQL_TYPE`).

        Raises:
            QueryError: the statement is wrong, would change something or reach outside, takes
                longer than ``timeout``, or needs more memory than the limit.
            StoreUnavailableError: the store behind the home cannot be reached.
        """
        _check_text(sql)
        if self._home.store is not None:
            from storage.sharing import pull  # half a second, for homes with a store alone

            pull(self._home)
        request = {
            "root": str(self._home.root.absolute()),
            "sql": sql,
            "parameters": dict(parameters) if parameters else None,
            "timeout": timeout,
            "memory_mb": self._memory_mb,
        }
        schema, failed = pa.schema([]), None
        batches: list[pa.RecordBatch] = []
        for kind, content in ask(request):
            if kind == "schema":
                schema, batches = pa.ipc.read_schema(pa.py_buffer(content)), []
            elif kind == "batch":
                batches.append(pa.ipc.read_record_batch(pa.py_buffer(content), schema))
            elif kind == "warning":
                logging.getLogger(content[0]).warning(content[1])
            elif kind == "error":
                failed = content
        if failed is not None:
            raise failed
        return pa.Table.from_batches(batches, schema=schema)

    def describe(self, view: str | None = None) -> pa.Table:
        """Return the columns of one view or all: ``view``, ``column``, ``type``, ``description``.

        Raises:
            QueryError: there is no such view.
        """
        from storage.view_sources import VIEWS, describe

        if view is not None and view.lower() not in VIEWS:
            raise QueryError(f"no view is called {view!r}; there are {', '.join(VIEWS)}")
        return describe([view.lower()] if view else VIEWS)


def _check_text(sql: str) -> None:
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise QueryError(
            f"the statement is not UTF-8: character {error.start + 1} is {sql[error.start]!a}"
        ) from None
    if "\0" in sql:
        raise QueryError(f"character {sql.index(chr(0)) + 1} of the statement is NUL")
    if len(sql) > LONGEST_STATEMENT:
        raise QueryError(
            f"the statement has {len(sql)} characters, expected at most {LONGEST_STATEMENT}"
        )
