"""SQL over everything that runs have left: DuckDB in memory, over copies and scans of the tables.

A query cannot reach files, settings or the network, and its time and memory are limited whatever it
does: it runs in a process of its own (`storage.sql.engine`). Small tables are copied into memory
first; large ones and activations are scanned through Arrow, which reads only the columns and the
parts that a query needs.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from storage.errors import QueryError
from storage.paths import Home
from storage.sql.process import Parameters, Query, ask

if TYPE_CHECKING:  # who asks for text starts sooner without it
    import pyarrow as pa

DEFAULT_TIMEOUT = 30.0
"""Seconds that a query may take."""

LONGEST_STATEMENT = 10_000_000
"""Characters that a statement may have."""


class Answer(NamedTuple):
    """A query's result as pieces of text, and how many rows it has."""

    rows: int
    texts: list[str]


class Catalog:
    """The SQL views of one home. Every query sees the files as they are when it starts."""

    def __init__(self, home: Home, memory_mb: int = 2000) -> None:
        """Serve ``home``; it may be empty or not there.

        The engine may use ``memory_mb`` megabytes for the tables and the query; a result may be as
        large again.
        """
        self._home = home
        self._memory_mb = memory_mb

    def query(
        self, sql: str, timeout: float = DEFAULT_TIMEOUT, parameters: Parameters | None = None
    ) -> "pa.Table":
        """Run one read-only SQL statement over the views that ``describe`` lists.

        Args:
            sql: the statement, in DuckDB's dialect.
            timeout: seconds after which it is stopped, the reading of tables included.
            parameters: values of the statement's parameters, as ``$name``.

        Returns:
            The rows. Values of types that Arrow cannot hold (intervals, times with an offset, ...)
            are texts; their columns' metadata names the type (`storage.sql.types.SQL_TYPE`).

        Raises:
            QueryError: the statement is wrong, would change something or reach outside, takes
                longer than ``timeout``, or needs more memory than the limit.
            StoreUnavailableError: the store behind the home cannot be reached.
        """
        import pyarrow as pa

        schema = pa.schema([])
        batches: list[pa.RecordBatch] = []
        for kind, content in self._ask(sql, timeout, parameters):
            if kind == "schema":
                schema, batches = pa.ipc.read_schema(pa.py_buffer(content)), []
            else:
                batches.append(pa.ipc.read_record_batch(pa.py_buffer(content), schema))
        return pa.Table.from_batches(batches, schema=schema)

    def text(
        self,
        sql: str,
        layout: Mapping[str, Any],
        timeout: float = DEFAULT_TIMEOUT,
        parameters: Parameters | None = None,
    ) -> Answer:
        """Run one statement, as ``query``, and return its rows as text, made within the limits.

        ``layout`` has arguments of `storage.sql.formats.text_of`, such as ``output``, the format.
        """
        rows, texts = 0, list[str]()
        for kind, content in self._ask(sql, timeout, parameters, layout):
            if kind == "rows":
                rows = content
            else:
                texts.append(content)
        return Answer(rows, texts)

    def _ask(
        self,
        sql: str,
        timeout: float,
        parameters: Parameters | None,
        layout: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        _check_text(sql)
        if self._home.store is not None:
            from storage.runs.sharing import pull  # half a second, for homes with a store alone

            pull(self._home)
        root = self._home.root.absolute()
        failed = None
        for kind, content in ask(Query(root, sql, parameters, timeout, self._memory_mb, layout)):
            if kind == "warning":
                logging.getLogger(content[0]).warning(content[1])
            elif kind == "error":
                failed = content
            else:
                yield kind, content
        if failed is not None:
            raise failed

    @staticmethod
    def describe() -> "pa.Table":
        """Return the columns of all views: ``view``, ``column``, ``type``, ``description``."""
        from storage.sql.view_sources import describe

        return describe()


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
