"""Rows made into declared tables: everything that a schema says is checked before it is written."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyarrow as pa

from storage.errors import StorageError
from storage.tables.columns import PARTED_KINDS, Table
from storage.tables.schemas import TABLES

Row = Mapping[str, Any]
_Check = Callable[[Any], bool]


class SchemaError(StorageError):
    """Rows do not fit the declared schema of their table."""


def to_table(name: str, rows: Sequence[Row]) -> pa.Table:
    """Make rows into the declared table called ``name``.

    Every column must be given; what is not known is None, where the schema allows it.

    Raises:
        SchemaError: no such table; a column is missing or unknown; a value has the wrong type, is
            None or NaN where a value is needed, or is not one of those declared.
    """
    if name not in TABLES:
        raise SchemaError(f"no table {name!r} is declared; there are {', '.join(TABLES)}")
    return conform(TABLES[name], rows)


def conform(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Make rows into an Arrow table of ``table``'s schema; see ``to_table``."""
    _check_names(table, rows)
    columns = []
    for field in table.schema:
        values = [row[field.name] for row in rows]
        _check_column(table, field, values)
        try:
            columns.append(pa.array(values, field.type))
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise SchemaError(f"{table.name}.{field.name}: {error}") from error
    _check_heads(table, rows)
    return pa.Table.from_arrays(columns, schema=table.schema)


def _check_names(table: Table, rows: Sequence[Row]) -> None:
    expected = set(table.schema.names)
    for index, row in enumerate(rows):
        if row.keys() == expected:
            continue
        missing = [name for name in table.schema.names if name not in row]
        wrong = {"columns missing": missing, "columns unknown": sorted(set(row) - expected)}
        found = [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
        raise SchemaError(
            f"{table.name}, row {index}: {'; '.join(found)}; "
            f"expected exactly {', '.join(table.schema.names)}"
        )


def _check_column(table: Table, field: pa.Field, values: list[Any]) -> None:
    fits, expected = _TYPES[field.type]
    allowed = table.values.get(field.name)
    minimum = table.minima.get(field.name)
    for index, value in enumerate(values):
        if value is None:
            wrong = "" if field.nullable else f"{expected}, the column is never NULL"
        elif not fits(value):
            wrong = expected
        elif allowed is not None and value not in allowed:
            wrong = f"one of {', '.join(map(repr, allowed))}"
        elif minimum is not None and value < minimum:
            wrong = f"at least {minimum}"
        else:
            continue
        if wrong:
            raise SchemaError(
                f"{table.name}.{field.name}, row {index}: found {value!r}, expected {wrong}"
            )


def _check_heads(table: Table, rows: Sequence[Row]) -> None:
    if not {"module_kind", "head"} <= set(table.schema.names):
        return
    for index, row in enumerate(rows):
        if row["module_kind"] in PARTED_KINDS and row["head"] is None:
            raise SchemaError(
                f"{table.name}.head, row {index}: found None for a module of kind "
                f"{row['module_kind']!r}, expected a number for a head or a neuron"
            )


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not _is_flag(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not _is_flag(value) and not math.isnan(value)


def _is_time(value: Any) -> bool:
    return isinstance(value, datetime) and value.utcoffset() is not None


_TYPES: dict[pa.DataType, tuple[_Check, str]] = {
    pa.string(): (lambda value: isinstance(value, str), "text"),
    pa.bool_(): (_is_flag, "True or False"),
    **dict.fromkeys((pa.int8(), pa.int32(), pa.int64()), (_is_whole, "a whole number")),
    pa.float64(): (_is_number, "a number, not NaN"),
    pa.timestamp("us", tz="UTC"): (_is_time, "a datetime with a time zone"),
}
