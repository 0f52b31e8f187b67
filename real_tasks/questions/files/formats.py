"""Formats of data files: JSON lines, JSON arrays, CSV and Parquet, as rows with line numbers.

Each reader gives, line by line, a `Row` or the `Problem` why there is none.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_tasks.vocabulary.errors import UserInputError

BOM = "\ufeff"
_BLANKS = " \t\r\n"
_NO_BLANK = re.compile(rf"[^{_BLANKS}]")
_MAX_FIELD_CHARACTERS = 10_000_000
"""Longest field of a CSV file; the standard library's limit is too low for long contexts."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with a line (from 1; in Parquet and on the Hub, a row) of a data file."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}"


@dataclass(frozen=True)
class Row:
    """One record: the line on which it begins, and its number from 1 among all of the file's."""

    line: int
    number: int
    fields: Mapping[str, Any]


def is_array(text: str) -> bool:
    """Return whether the text is a JSON array rather than JSON lines."""
    return text.lstrip(_BLANKS).startswith("[")


def is_spread(text: str) -> bool:
    """Return whether the text is JSON objects that are not one a line."""
    place = _skip_blanks(text, 0)
    try:
        value, end = json.JSONDecoder().raw_decode(text, place)
    except (ValueError, RecursionError):
        return False
    after = _skip_blanks(text, end)
    one_a_line = "\n" not in text[place:end] and (after == len(text) or "\n" in text[end:after])
    return isinstance(value, dict) and not one_a_line and text[after : after + 1] in ("", *"{,")


def json_lines(text: str) -> Iterator[Row | Problem]:
    """Read one object a line; blank lines hold nothing."""
    # Not splitlines(): a string may hold the line separators of Unicode.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _object(number, number, json.loads(line.lstrip(BOM)))  # of files put together
        except (ValueError, RecursionError) as error:
            yield Problem(number, f"invalid JSON ({_fault(error)})")


def array_rows(text: str) -> Iterator[Row | Problem]:
    """Read an array, or objects that follow one another, one by one, so that each has its line.

    What follows the first fault cannot be told apart any more and is not read.
    """
    decoder, end = json.JSONDecoder(), "]" if is_array(text) else ""
    place = _skip_blanks(text, text.index("[") + 1 if end else 0)
    number, line, counted = 0, 1, 0
    while text[place : place + 1] not in ("", end):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            where = getattr(error, "lineno", line)
            yield Problem(where, f"invalid JSON ({_fault(error)}); what follows was not read")
            return
        number += 1
        yield _object(line, number, value)
        place = _skip_blanks(text, place)
        if text[place : place + 1] == ",":
            place = _skip_blanks(text, place + 1)
        elif end:
            break
    line += text.count("\n", counted, place)
    if text[place : place + 1] != end:
        yield Problem(line, "invalid JSON (',' or ']' expected); what follows was not read")
    elif end and _NO_BLANK.search(text, place + 1):
        yield Problem(line, "something follows the end of the JSON array; it was not read")


def csv_rows(name: str, text: str) -> Iterator[Row | Problem]:
    """Read a table that is separated by commas and has a header; blank rows hold nothing.

    Raises:
        UserInputError: the header cannot be used.
    """
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        # Some programs put blank lines before it.
        header = [column.strip() for column in next(row for row in reader if any(row))]
    except csv.Error as error:
        raise UserInputError(f"{name!r}: the header cannot be read: {error}") from error
    if len(set(header)) < len(header) or not all(header):
        raise UserInputError(
            f"{name!r}: the header is {header}; expected a name of its own for every column"
        )
    for number in itertools.count(1):
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(line, f"invalid CSV ({error}; is a quotation mark left open?)")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            yield Problem(line, f"{len(cells)} fields; expected {len(header)}, as in the header")
        else:
            yield Row(line, number, dict(zip(header, cells, strict=True)))


def parquet_rows(path: Path) -> Iterator[Row]:
    """Read a Parquet file; the number of the row is its line.

    Raises:
        UserInputError: it is no Parquet file.
    """
    import pandas

    try:
        records = pandas.read_parquet(path).to_dict("records")
    except (OSError, ValueError) as error:
        raise UserInputError(f"{path.name!r} cannot be read as Parquet: {error}") from error
    for number, record in enumerate(records, start=1):
        yield Row(number, number, {str(column): _plain(value) for column, value in record.items()})


def _object(line: int, number: int, value: Any) -> Row | Problem:
    if isinstance(value, dict):
        return Row(line, number, value)
    return Problem(line, f"{kind_of(value)}; expected an object with named fields")


def kind_of(value: Any) -> str:
    """Return what a value of JSON is, in words."""
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list"}
    names |= {str: "a text", dict: "an object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _skip_blanks(text: str, place: int) -> int:
    found = _NO_BLANK.search(text, place)
    return len(text) if found is None else found.start()


def _plain(value: Any) -> Any:
    """Return numpy's arrays and scalars as Python's; a missing value is None."""
    import pandas

    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return None if pandas.isna(value) else value
