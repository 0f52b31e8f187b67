"""Types of SQL that Arrow has no exact type for: their values cross as the text DuckDB shows."""

import duckdb
from duckdb.sqltypes import DuckDBPyType

SQL_TYPE = b"sql_type"
"""Key of a column's metadata: the SQL type of which the column holds the text."""

_NESTED = ("list", "array", "struct", "map")
# Of others Arrow would have a time without its offset, a large number cut, bits as bytes.
_KNOWN = (
    *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "float", "double", "decimal"),
    *("varchar", "blob", "uuid", "date", "time", "null"),
    *("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"),
)


def carried(
    relation: duckdb.DuckDBPyRelation,
) -> tuple[duckdb.DuckDBPyRelation, list[dict[bytes, bytes] | None]]:
    """Return the relation with columns that Arrow can hold, and the metadata of each column."""
    kinds: list[dict[bytes, bytes] | None] = []
    columns = []
    for place, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1):
        exact = _is_carried(kind)
        kinds.append(None if exact or kind.id == "enum" else {SQL_TYPE: str(kind).encode()})
        quoted = name.replace('"', '""')
        columns.append(f"#{place}" if exact else f'CAST(#{place} AS VARCHAR) AS "{quoted}"')
    if all(column.startswith("#") for column in columns):
        return relation, kinds
    return relation.project(", ".join(columns)), kinds


def _is_carried(kind: DuckDBPyType) -> bool:
    if kind.id in _NESTED:
        parts = [part for _, part in kind.children if isinstance(part, DuckDBPyType)]
        return all(map(_is_carried, parts))
    return kind.id in _KNOWN
