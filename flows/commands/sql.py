"""What `real sql` does with its arguments, and with statements that come from a pipe."""

import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import typer

from real_tasks.vocabulary.errors import UserInputError
from storage.paths import Home
from storage.sql.catalog import LONGEST_STATEMENT, Catalog
from storage.sql.process import Parameters
from storage.sql.queries import describe_queries, find_query, parse_call
from storage.sql.statements import Splitter

FileFormat = Literal["parquet", "csv", "json", "table"]

ROWS_SHOWN = 200
"""Rows of a table on a terminal."""
_ENDINGS: dict[str, FileFormat] = {".parquet": "parquet", ".csv": "csv", ".json": "json"}


@dataclass(frozen=True)
class Output:
    """Where rows go: to the file ``to``, or to the screen, where ``whole`` shows all of a table.

    `format` is None where none was asked for; ``force`` replaces a file that is there already.
    """

    home: Home
    format: FileFormat | None
    to: Path | None
    force: bool
    whole: bool = False

    def check(self) -> FileFormat:
        """Make sure that rows can go there, and return as what.

        Raises:
            UserInputError: the format and the file do not fit.
            StorageError: the file is there already or in the home, or its folder is not there.
        """
        if self.to is None:
            if self.format == "parquet":
                raise UserInputError("Parquet is no text: name a file with --to FILE")
            return self.format or "table"
        found = self.format or _ENDINGS.get(self.to.suffix.lower())
        if found is None:
            raise UserInputError(
                f"{self.to} has none of the endings {', '.join(_ENDINGS)}: say --format"
            )
        from storage.sql.exports import check_target

        check_target(self.to, self.home, overwrite=self.force)
        return found

    def answer(self, sql: str, timeout: float, parameters: Parameters | None = None) -> None:
        """Run a statement and put its rows there.

        Raises:
            UserInputError: as `check`.
            StorageError: as `check`, or the query is wrong, or was stopped.
        """
        catalog, shown = Catalog(self.home), self.check()
        if shown == "parquet":
            table = catalog.query(sql, timeout, parameters)
            self._put(table, table.num_rows)
        else:
            most = ROWS_SHOWN if sys.stdout.isatty() and not self.whole else None
            width = shutil.get_terminal_size((100, 24)).columns
            layout = {"output": shown, "width": width, "most": most}
            rows, texts = catalog.text(sql, layout, timeout, parameters)
            self._put(texts, rows)

    def list(self, table: Any) -> None:
        """Put a table there that comes from no query; raise as `check`."""
        shown = self.check()
        from storage.sql.formats import text_of

        self._put(table if shown == "parquet" else text_of(table, shown), table.num_rows)

    def _put(self, content: Any, rows: int) -> None:
        if self.to is None:
            for text in content:
                show(text)
        else:
            from storage.sql.exports import export

            export(content, self.to, self.home, overwrite=self.force)
            typer.echo(f"{rows} rows in {self.to}")


def show(text: str) -> None:
    """Print text; on a terminal without what would move its cursor or change its colours."""
    if sys.stdout.isatty():
        from storage.sql.drawing import escaped

        text = escaped(text)
    typer.echo(text, nl=False)


def answer(output: Output, words: list[str], timeout: float) -> None:
    """Run the statement or the named query that ``words`` are; raise as `Output.answer`."""
    if words[0].startswith("@"):
        query, values = parse_call(words)
        output.answer(query.sql, timeout, values)
    elif len(words) == 1:
        output.answer(words[0], timeout)
    else:
        raise UserInputError(
            f"found {len(words)} words; put the statement in quotes, or call a named query: "
            "real sql @top-heads model=demo"
        )


def answer_input(output: Output, timeout: float) -> None:
    """Run what comes over standard input, one by one, until one raises as `Output.answer`."""
    if sys.stdin.isatty():
        raise UserInputError(
            'give a statement (`real sql "FROM runs"`) or a named query (`real sql --examples` '
            "lists them), or send statements: `real sql < my.sql`. `real sql --tables` says what "
            "there is to query. For an interactive shell, open the Parquet files of the home's "
            "tables, or one that --to writes, in DuckDB's own"
        )
    if output.to is not None:
        raise UserInputError("--to takes the rows of one query; give it after `real sql`")
    for words in _statements(_lines()):
        answer(output, words, timeout)


def list_views(output: Output, words: list[str] | None) -> None:
    """List the views and their columns."""
    if words:
        raise UserInputError("give one query, or --tables to see what there is to query")
    output.list(Catalog(output.home).describe())


def list_queries(output: Output, words: list[str] | None) -> None:
    """List the named queries, or print the SQL of the one that is named."""
    if words:
        typer.echo(find_query(words[0].removeprefix("@")).sql)
    else:
        output.list(describe_queries())


def _statements(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield each statement, and the words of each line that calls a named query."""
    splitter = Splitter()
    for line in lines:
        if not splitter.waiting and line.lstrip().startswith("@"):
            yield _words(line.strip("; \t\r\n"))
        else:
            yield from ([statement] for statement in splitter.feed(line))
    yield from ([statement] for statement in splitter.rest())


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserInputError(f"found {text!r}: {error}; quote a text on both sides") from None


def _lines() -> Iterator[str]:
    """Yield lines of standard input; the catalog says where they are not UTF-8."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return iter(lambda: sys.stdin.readline(LONGEST_STATEMENT + 1), "")
