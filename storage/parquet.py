"""Tables as Parquet files: one file a run in the table's folder, published by a rename.

Writers never touch each other's files and readers never see half a file, so that any number of
processes may write and read one home at once without a lock.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import StorageError
from storage.paths import Home
from storage.rows import Row, SchemaError, to_table
from storage.schemas import TABLES

SUFFIX = ".parquet"


class DamagedTableError(StorageError):
    """A table's file cannot be read."""


def write_table(home: Home, name: str, part: str, rows: Sequence[Row]) -> Path:
    """Write rows of the declared table ``name`` as its part ``part``; an older one is replaced.

    Args:
        home: where the table is.
        name: a declared table.
        part: the file's name without its ending: a run's id, or the key of what it was made from.
        rows: one mapping a row; every column must be there.

    Raises:
        SchemaError: the rows do not fit the schema, or ``part`` is no plain file name.
    """
    if not part or part.startswith(".") or Path(part).name != part:
        raise SchemaError(f"{part!r} cannot name a part of {name}; expected a plain file name")
    table = to_table(name, rows)
    path = home.tables / name / f"{part}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(table, path, compression="zstd")
    return path


def publish(table: pa.Table, path: Path, *, durable: bool = True, **options: Any) -> None:
    """Write ``table`` to ``path`` so that it is there whole or not at all.

    Args:
        table: what to write.
        path: the file; its folder exists.
        durable: whether that holds after a power cut too, and the file is there on return.
        options: those of ``pyarrow.parquet.write_table``.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            pq.write_table(table, file, **options)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once its folder is on the disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_table(home: Home, name: str) -> pa.Table:
    """Read all parts of the declared table ``name``, in the order of their names.

    A part that is removed meanwhile is left out. A column that a part does not have, because it was
    written before the column was declared, is NULL.

    Raises:
        DamagedTableError: a part is no Parquet file, or a column has another type.
    """
    schema = nullable(TABLES[name].schema)
    parts = [_read_part(path, schema) for path in sorted((home.tables / name).glob(f"*{SUFFIX}"))]
    return pa.concat_tables([schema.empty_table(), *(part for part in parts if part is not None)])


def read_rows(home: Home, name: str) -> list[dict[str, Any]]:
    """Read all parts of a declared table as one mapping a row; see ``read_table``."""
    rows: list[dict[str, Any]] = read_table(home, name).to_pylist()
    return rows


def nullable(schema: pa.Schema) -> pa.Schema:
    """Return the schema with every column nullable."""
    return pa.schema([field.with_nullable(True) for field in schema], schema.metadata)


def _read_part(path: Path, schema: pa.Schema) -> pa.Table | None:
    try:
        with path.open("rb") as file:
            found = pq.ParquetFile(file).read(use_threads=False)  # threads cost more than a part
        columns = [
            found[field.name].cast(field.type)
            if field.name in found.schema.names
            else pa.nulls(found.num_rows, field.type)
            for field in schema
        ]
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        raise DamagedTableError(
            f"{path} is damaged ({error}); remove it, and run the experiment again to write it anew"
        ) from error
    return pa.Table.from_arrays(columns, schema=schema)
