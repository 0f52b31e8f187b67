"""Query results as text: a table for people, CSV and JSON for programs."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import StorageError
from storage.sql.drawing import Drawing, escaped
from storage.sql.moments import as_numbers, reader_of

Format = Literal["table", "csv", "json"]

_SIGNIFICANT_DIGITS = 4
_SHOWN_ITEMS = 3
# Rows that are in memory as Python's values at a time; a table is laid out by the first.
_AT_ONCE = 10_000


def text_of(
    table: pa.Table, output: Format, width: int | None = None, most: int | None = None
) -> Iterator[str]:
    """Yield a query's result as text that ends with a newline, piece by piece.

    - ``table``: for people. It fits ``width``; floats are rounded, long lists shortened, control
      characters escaped; a result with too many columns for the width becomes a block of
      ``column  value`` lines for each row. Texts beyond the first 10,000 rows do not widen it.
    - ``csv``: with a header; exact numbers, nothing for NULL, ``""`` for empty text, JSON for
      nested values, ISO 8601 times.
    - ``json``: a list of records, exact numbers, ISO 8601 times. NaN and infinities, which JSON
      lacks, are the texts "NaN", "Infinity" and "-Infinity".

    Times without end, before Christ or after the year 9999 are written as DuckDB shows them.

    Args:
        table: the result.
        output: the format.
        width: columns of the screen; None takes the terminal's.
        most: rows of a table for people that are shown; None shows all.

    Raises:
        StorageError: there is no such format.
    """
    names = unique_names(table.column_names)
    if output == "csv":
        yield _csv_row(names)
        for rows in _rows(table):
            yield "".join(map(_csv_row, rows))
    elif output == "json":
        yield from _json(names, _rows(table))
    elif output == "table":
        yield from _for_people(
            table, names, width or shutil.get_terminal_size((100, 24)).columns, most
        )
    else:
        raise StorageError(f"unknown format {output!r}; expected table, csv or json")


def _rows(table: pa.Table, *, people: bool = False) -> Iterator[list[tuple[Any, ...]]]:
    readers = [reader_of(kind, people) for kind in table.schema.types]
    for batch in table.to_batches(_AT_ONCE):
        columns = []
        for column, reader in zip(batch.columns, readers, strict=True):
            values = as_numbers(column).to_pylist()
            columns.append(values if reader is None else [*map(reader, values)])
        yield list(zip(*columns, strict=True))


def unique_names(names: Sequence[str]) -> list[str]:
    """Number repeated names: SQL allows them, records do not."""
    unique: list[str] = []
    for name in names:
        candidate, count = name, 1
        while candidate in unique:
            count += 1
            candidate = f"{name}_{count}"
        unique.append(candidate)
    return unique


def _plain(value: Any) -> Any:
    """Return ``value`` as what JSON knows, without loss."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _json(names: list[str], chunks: Iterator[list[tuple[Any, ...]]]) -> Iterator[str]:
    """One record a line, so that long lists of numbers stay readable."""
    before = "[\n"
    for rows in chunks:
        records = (dict(zip(names, map(_plain, row), strict=True)) for row in rows)
        lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        if lines:
            yield before + lines
            before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _csv_row(row: Sequence[Any]) -> str:
    return ",".join(map(_csv_cell, row)) + "\n"


def _csv_cell(value: Any) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    if isinstance(plain, bool | dict | list):
        plain = json.dumps(plain, ensure_ascii=False)
    text = str(plain)
    needs_quotes = not text or any(character in text for character in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if needs_quotes else text


def _for_people(table: pa.Table, names: list[str], width: int, most: int | None) -> Iterator[str]:
    total = table.num_rows
    if not total:
        yield f"(no rows; columns: {escaped(', '.join(names))})\n"
        return
    shown = table if most is None else table.slice(0, most)
    chunks = (
        [[_short(value) for value in row] for row in rows] for rows in _rows(shown, people=True)
    )
    first = next(chunks, [])
    right = [*map(_is_number, table.schema.types)]
    sample = first if len(first) == shown.num_rows else first + _extremes(shown)
    yield from Drawing(names, right, sample, width).text(chain([first], chunks))
    rest = "" if shown.num_rows == total else f"; the first {most} are shown, all with --all"
    yield f"({total} row{'' if total == 1 else 's'}{rest})\n"


def _extremes(table: pa.Table) -> list[list[str]]:
    """Return two rows with the widest numbers of all, so that none is cut in two."""
    columns = []
    for column in table.columns:
        if pa.types.is_floating(column.type):
            columns.append([f"{-1.2345e-05:.{_SIGNIFICANT_DIGITS}g}"] * 2)
        elif _is_number(column.type):
            columns.append([*map(_short, pc.min_max(column).as_py().values())])
        else:
            columns.append([""] * 2)
    return [list(row) for row in zip(*columns, strict=True)]


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.{_SIGNIFICANT_DIGITS}g}"
    if isinstance(value, list):
        items = ", ".join(map(_short, value[:_SHOWN_ITEMS]))
        return f"[{items}]" if len(value) <= _SHOWN_ITEMS else f"[{items}, … {len(value)} in all]"
    return escaped(str(value))
