"""Query results as files: Parquet, CSV, JSON."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import StorageError
from storage.paths import Home
from storage.sql.formats import unique_names
from storage.sql.moments import is_endless
from storage.sql.types import SQL_TYPE
from storage.tables.parquet import publish
from storage.whole_files import whole_file

_HOLDS = ("tables", "artifacts")  # what tells a home of runs
_LARGEST_DECIMAL = 10**38 - 1


def export(
    content: pa.Table | Iterable[str], path: Path, home: Home, *, overwrite: bool = False
) -> None:
    """Write a query's result to a file, which is there whole or not at all.

    It is text, or rows for Parquet. The ``home`` that was queried is no place for other files; one
    that is there already is replaced where ``overwrite`` says so.

    Raises:
        StorageError: the file is there already, or cannot be written, or Parquet cannot hold a
            column.
    """
    check_target(path, home, overwrite=overwrite)
    try:
        if isinstance(content, pa.Table):
            named = content.rename_columns(unique_names(content.column_names))
            _check_columns(named)
            publish(named, path, compression="zstd")
        else:
            with whole_file(path) as file:
                file.writelines(text.encode() for text in content)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror})") from error
    except pa.ArrowException as error:
        raise StorageError(f"Parquet cannot hold the result: {error}") from error


def check_target(path: Path, home: Home, *, overwrite: bool) -> None:
    """Make sure, before a query runs for long, that its result can be written.

    Raises:
        StorageError: the file is there already, or is none, or lies in a home of runs; or its
            folder is not there.
    """
    try:
        folder = path.absolute().parent.resolve()
        if not folder.is_dir():
            raise StorageError(f"{folder} is no folder; expected one to write into")
        _check_outside(folder, home)
        found = path.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError, RuntimeError) as error:  # too long; a NUL; links in a circle
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{path} cannot be written ({reason})") from error
    if stat.S_ISDIR(found.st_mode):
        raise StorageError(f"{path} is a folder; expected the name of a file")
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "a device, a pipe or a socket"
        raise StorageError(
            f"{path} is {kind}, which --to does not replace; name a file, or leave --to out and "
            "send what is printed there"
        )
    if not overwrite:
        raise StorageError(f"{path} is there already; choose another name, or --force")


def _check_outside(folder: Path, home: Home) -> None:
    """Compare folders by what they are on the disk: names may differ by case, links or mounts."""
    owned = [home.root] + ([Path(home.store)] if home.store and "://" not in home.store else [])
    places = [one.stat() for one in owned if one.is_dir()]
    for one in (folder, *folder.parents):
        mine = any(os.path.samestat(one.stat(), place) for place in places)
        if mine or all((one / name).is_dir() for name in _HOLDS):
            where = f"is {'' if one == folder else f'in {one}, '}a home"
            raise StorageError(
                f"{folder} {where}, which belongs to runs and their tables; choose a place outside "
                "of it"
            )


def _check_columns(table: pa.Table) -> None:
    """Refuse what Parquet has no value for, by column and type."""
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = (field.metadata or {}).get(SQL_TYPE)
        if kind is not None:
            raise StorageError(
                f"the column {field.name} is {kind.decode()}, which Parquet does not hold; cast it "
                f'("{field.name}"::VARCHAR), or write CSV or JSON'
            )
        if unheld := _unheld(column):
            raise StorageError(
                f"the column {field.name} ({field.type}) holds {unheld}, which Parquet does not; "
                f'cast it ("{field.name}"::VARCHAR), or write CSV or JSON'
            )


def _unheld(column: pa.ChunkedArray) -> str | None:
    for chunk in column.chunks:
        kind = chunk.type
        if pa.types.is_date32(kind) or pa.types.is_timestamp(kind):
            numbers = chunk.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
            if any(map(is_endless, _extremes(numbers))):
                return "a time without end"
        elif pa.types.is_decimal(kind):
            if any(abs(value) > _LARGEST_DECIMAL for value in _extremes(chunk)):
                return "a number of 39 digits"
        elif pa.types.is_nested(kind):
            for part in _parts(chunk):
                if unheld := _unheld(pa.chunked_array([part])):
                    return unheld
    return None


def _extremes(array: pa.Array) -> list[Any]:
    return [value for value in pc.min_max(array).as_py().values() if value is not None]


def _parts(array: pa.Array) -> list[pa.Array]:
    if pa.types.is_struct(array.type):
        return [array.field(place) for place in range(array.type.num_fields)]
    if pa.types.is_map(array.type):
        return [array.keys, array.items]
    return [array.flatten()]
