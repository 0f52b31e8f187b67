"""What a person or a script types after `real sql`: statements, named queries, commands."""

import shlex
from collections.abc import Callable
from math import isfinite
from typing import Any

from real_tasks.errors import UserInputError
from storage.catalog import DEFAULT_TIMEOUT, Catalog, Parameters
from storage.errors import QueryStoppedError
from storage.formats import Format, text_of
from storage.queries import describe_queries, find_query, parse_call
from storage.statements import is_complete, split_statements

HELP = """A statement may take several lines, up to its semicolon. Beside SQL there are:
  @NAME parameter=value ...   a query of the library
  .tables                     the views
  .schema VIEW                a view's columns
  .examples [NAME]            the library of queries, or the SQL of one
  .format table|csv|json      how rows are printed
  .rows NUMBER|all            how many rows of a table are shown
  .timeout SECONDS            when a query is stopped
  .quit                       leave (also Ctrl-D; Ctrl-C stops a query)
"""
COMMANDS = {
    ".tables": "the views",
    ".schema": "a view's columns",
    ".examples": "the library of queries, or the SQL of one",
    ".format": "how rows are printed",
    ".rows": "how many rows of a table are shown",
    ".timeout": "when a query is stopped",
    ".help": "what there is",
    ".quit": "leave",
}
ROWS_SHOWN = 200
"""Rows of a table on a terminal."""
LONGEST_SECONDS = 86_400.0
"""What a query may be allowed at most: a day."""


class SqlSession:
    """A catalog and how its answers are printed."""

    def __init__(
        self,
        catalog: Catalog,
        write: Callable[[str], None],
        output: Format = "table",
        timeout: float = DEFAULT_TIMEOUT,
        most: int | None = None,
    ) -> None:
        """Query ``catalog``, hand text to print to ``write``; of a table at most ``most`` rows."""
        self._catalog = catalog
        self._write = write
        self._output = output
        self._timeout = timeout
        self._most = most

    def is_complete(self, text: str) -> bool:
        """Say whether the text can be run as it is, or goes on in the next line."""
        return text.lstrip()[:1] in ("", ".", "@") or is_complete(text)

    def run(self, text: str) -> None:
        """Run what was typed and print the answer.

        Raises:
            EOFError: it was `.quit`.
            StorageError: a query is wrong, or was stopped.
            UserInputError: a command is wrong.
        """
        text = text.strip()
        if text.startswith("."):
            self._command(*_words(text.rstrip("; ")))
        elif text.startswith("@"):
            query, values = parse_call(_words(text.rstrip("; ")))
            self.ask(query.sql, values)
        else:
            for statement in split_statements(text):
                self.ask(statement)

    def ask(self, sql: str, parameters: Parameters | None = None) -> None:
        """Run one statement and print the answer.

        Raises:
            QueryStoppedError: Ctrl-C stopped it.
            StorageError: the query is wrong, or took too long.
        """
        try:
            self._show(self._catalog.query(sql, self._timeout, parameters))
        except KeyboardInterrupt:
            raise QueryStoppedError("the query was stopped") from None

    def _show(self, table: Any) -> None:
        for text in text_of(table, self._output, most=self._most):
            self._write(text)

    def _command(self, name: str, *words: str) -> None:
        match name, words:
            case ".tables", ():
                from storage.view_sources import VIEWS  # as heavy as all the rest

                self._write("".join(f"{v.name:<18}{v.description}\n" for v in VIEWS.values()))
            case ".schema", (view,):
                self._show(self._catalog.describe(view))
            case ".examples", ():
                self._write("".join(text_of(describe_queries(), "table")))
            case ".examples", (query,):
                self._write(find_query(query.removeprefix("@")).sql + "\n")
            case ".format", (("table" | "csv" | "json") as output,):
                self._output = output
            case ".timeout", (seconds,):
                self._timeout = checked_timeout(seconds)
            case ".rows", (number,):
                self._most = None if number == "all" else _count(number)
            case ".help", ():
                self._write(HELP)
            case ".quit", ():
                raise EOFError
            case _:
                typed = " ".join([name, *words])
                raise UserInputError(f"found {typed!r}, expected one of:\n{HELP}")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserInputError(f"found {text!r}: {error}; quote a text on both sides") from None


def checked_timeout(given: str | float) -> float:
    """Return the seconds that a query may take.

    Raises:
        UserInputError: it is no number, or not one above 0 and up to a day.
    """
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not (isfinite(seconds) and 0 < seconds <= LONGEST_SECONDS):
        raise UserInputError(
            f"found a timeout of {given}, expected seconds, more than 0 and at most "
            f"{LONGEST_SECONDS:g}"
        )
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
        raise UserInputError(f"found .rows {text}, expected a whole number from 1, or all")
    return int(text)
