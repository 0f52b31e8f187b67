"""What `real sql` does with its arguments."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import typer

from flows.sql_session import ROWS_SHOWN, SqlSession, checked_timeout
from real_tasks.errors import UserInputError
from storage.catalog import LONGEST_STATEMENT, Catalog
from storage.drawing import escaped
from storage.formats import Format, text_of
from storage.paths import Home
from storage.queries import describe_queries, find_query, parse_call

FileFormat = Literal["parquet", "csv", "json", "table"]

HISTORY = "sql_history"
_ENDINGS: dict[str, FileFormat] = {".parquet": "parquet", ".csv": "csv", ".json": "json"}


@dataclass(frozen=True)
class Output:
    """Where rows go: to the screen, or to a file.

    Attributes:
        format: as asked for; None where nothing was.
        to: the file; None is the screen.
        force: whether a file that is there already is replaced.
        whole: whether a terminal shows all rows of a table.
    """

    format: FileFormat | None
    to: Path | None
    force: bool
    whole: bool = False

    @property
    def most(self) -> int | None:
        """How many rows of a table are shown; None: all of them."""
        return ROWS_SHOWN if sys.stdout.isatty() and not self.whole else None

    def check(self, home: Home) -> None:
        """Make sure that rows can go there.

        Raises:
            UserInputError: the format and the file do not fit.
            StorageError: the file is there already or in the home, or its folder is not there.
        """
        if self.to is None:
            self.on_screen()
        else:
            from storage.exports import check_target

            self._of_file(self.to)
            check_target(self.to, home, overwrite=self.force)

    def put(self, table: Any, home: Home) -> None:
        """Print the rows, or write them to the file."""
        if self.to is None:
            for text in text_of(table, self.on_screen(), most=self.most):
                show(text)
        else:
            from storage.exports import export

            export(table, self.to, self._of_file(self.to), home, overwrite=self.force)
            typer.echo(f"{table.num_rows} rows in {self.to}")

    def on_screen(self) -> Format:
        """Return how rows are printed.

        Raises:
            UserInputError: not on a screen.
        """
        if self.to is not None:
            raise UserInputError("--to takes the rows of one query; give it after `real sql`")
        if self.format == "parquet":
            raise UserInputError("Parquet is no text: name a file with --to FILE")
        return self.format or "table"

    def _of_file(self, path: Path) -> FileFormat:
        found = self.format or _ENDINGS.get(path.suffix.lower())
        if found is None:
            raise UserInputError(
                f"{path} has none of the endings {', '.join(_ENDINGS)}: say --format"
            )
        return found


def show(text: str) -> None:
    """Print text; on a terminal without what would move its cursor or change its colours."""
    typer.echo(escaped(text) if sys.stdout.isatty() else text, nl=False)


def answer(home: Home, output: Output, words: list[str], timeout: float) -> None:
    """Run the statement or the named query that ``words`` are.

    Raises:
        UserInputError: several words are no named query, or the timeout is out of range.
        StorageError: the query is wrong, or was stopped.
    """
    output.check(home)
    catalog, timeout = Catalog(home), checked_timeout(timeout)
    if words[0].startswith("@"):
        query, values = parse_call(words)
        output.put(catalog.query(query.sql, timeout, values), home)
    elif len(words) == 1:
        output.put(catalog.query(words[0], timeout), home)
    else:
        raise UserInputError(
            f"found {len(words)} words; put the statement in quotes, or call a named query: "
            "real sql @top-heads model=demo"
        )


def list_views(home: Home, output: Output, words: list[str] | None) -> None:
    """List the views and their columns.

    Raises:
        UserInputError: a query was given too.
    """
    if words:
        raise UserInputError("give one query, or --tables to see what there is to query")
    output.check(home)
    output.put(Catalog(home).describe(), home)


def list_queries(home: Home, output: Output, words: list[str] | None) -> None:
    """List the named queries, or print the SQL of the one that is named."""
    output.check(home)
    if words:
        typer.echo(find_query(words[0].removeprefix("@")).sql)
    else:
        output.put(describe_queries(), home)


def open_session(home: Home, output: Output, timeout: float) -> None:
    """Open the shell on a terminal; otherwise run the statements that come from elsewhere."""
    from flows.sql_shell import WELCOME, run_lines, run_shell

    seconds = checked_timeout(timeout)
    session = SqlSession(Catalog(home), show, output.on_screen(), seconds, output.most)
    if sys.stdin.isatty():
        typer.echo(WELCOME, nl=False)
        run_shell(session, home.root / HISTORY)
    else:
        run_lines(session, _lines())


def _lines() -> Iterator[str]:
    """Yield lines of standard input; the catalog says where they are not UTF-8."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return iter(lambda: sys.stdin.readline(LONGEST_STATEMENT + 1), "")
