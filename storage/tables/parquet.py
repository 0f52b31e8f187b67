"""Tables as Parquet files: one file a run in the table's folder, published by a rename.

Writers never touch each other's files and readers never see half a file, so that any number of
processes may write and read one home at once. `storage.upkeep.compaction` merges the files of
finished runs and swaps the folder for one that has the merged file: writers wait for the swap, and
a reader whose folder was swapped while it read begins again.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from storage.errors import StorageError
from storage.locks import locked
from storage.paths import Home
from storage.tables.rows import Row, SchemaError, to_table
from storage.tables.schemas import TABLES
from storage.tables.seals import DamagedTableError, check, check_content, damaged, seal, sealable
from storage.whole_files import whole_file

SUFFIX = ".parquet"
MERGED = "compacted-"
"""What names of merged files begin with."""
MERGED_PARTS = ".compacted"
"""File beside merged files: the parts that they replace, a line each, with the merged file."""

log = logging.getLogger(__name__)


def write_table(home: Home, name: str, part: str, rows: Sequence[Row]) -> Path:
    """Write rows of the declared table ``name`` as its part ``part``; an older one is replaced.

    The part, the file's name without ending, is a run's id, or the key of what it was made from.
    Every row has all columns.

    Raises:
        SchemaError: the rows do not fit the schema, or ``part`` is no plain file name.
        StorageError: the part was merged with others; finished runs are not written again.
    """
    if not part or part.startswith((".", MERGED)) or Path(part).name != part:
        raise SchemaError(f"{part!r} cannot name a part of {name}; expected a plain file name")
    table = to_table(name, rows)
    folder = home.tables / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}{SUFFIX}"
    with folder_lock(home, name, exclusive=False):
        if part in merged_parts(folder):
            raise StorageError(
                f"{part} of {name} is finished and was merged with others (`real compact`): it "
                "cannot be written again"
            )
        publish(table, path, compression="zstd")
    return path


def publish(table: pa.Table, path: Path, *, durable: bool = True, **options: Any) -> None:
    """Write ``table`` to ``path``, sealed, so that it is there whole or not at all.

    A ``durable`` file is so after a power cut too; ``options`` are those of
    ``pyarrow.parquet.write_table``.
    """
    sealed = table.replace_schema_metadata(sealable(table.schema).metadata)
    with whole_file(path, durable=durable) as file:
        pq.write_table(sealed, file, write_page_checksum=True, **options)
        seal(file)


def folder_lock(home: Home, name: str, *, exclusive: bool) -> AbstractContextManager[Any]:
    """Keep a table's folder from being swapped, or, exclusively, from being written to."""
    return locked(home.tables / f".{name}.lock", shared=not exclusive)


def merged_parts(folder: Path) -> dict[str, str]:
    """Return the parts that were merged in a table's folder, each with the name of its merged file.

    The name is '' where an earlier version merged them.
    """
    try:
        lines = (folder / MERGED_PARTS).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    return {part: file for part, _, file in (line.partition(" ") for line in lines)}


def files_of(folder: Path) -> list[Path]:
    """Return the files of a table's folder, in the order of their names; merged ones are last.

    Raises:
        StorageError: what is there is no folder, or cannot be listed.
    """
    try:
        return sorted(p for p in folder.iterdir() if p.suffix == SUFFIX and p.name[0] != ".")
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.is_symlink():
            return []
        raise StorageError(
            f"{folder}, the folder of a table, cannot be listed ({error.strerror}): mend its "
            "rights, or rename it, and run again what was in it"
        ) from error


def stamp_of(folder: Path) -> tuple[int, int]:
    """Return what changes when a table's folder is swapped for another."""
    try:
        swapped = (folder / MERGED_PARTS).stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    return swapped.st_ino, swapped.st_mtime_ns


def read_table(home: Home, name: str) -> pa.Table:
    """Read all parts of the declared table ``name``, in the order of their names.

    A part that is removed meanwhile is left out, and one that is damaged, with a warning. A column
    that a part does not have, because it was written before the column was declared, is NULL.
    """
    schema, folder = nullable(TABLES[name].schema), home.tables / name
    while True:
        before = stamp_of(folder)
        parts = [_sound_part(path, schema) for path in files_of(folder)]
        if stamp_of(folder) == before:
            break
    return pa.concat_tables([schema.empty_table(), *(part for part in parts if part is not None)])


def read_rows(home: Home, name: str) -> list[dict[str, Any]]:
    """Read all parts of a declared table as one mapping a row; see ``read_table``."""
    rows: list[dict[str, Any]] = read_table(home, name).to_pylist()
    return rows


def read_run(home: Home, name: str, run_id: str) -> list[dict[str, Any]]:
    """Read one run's rows of a declared table, in the order in which they were written.

    Raises:
        DamagedTableError: a file that may hold them cannot be read.
    """
    schema, folder = nullable(TABLES[name].schema), home.tables / name
    while True:
        before = stamp_of(folder)
        part = read_part(folder / f"{run_id}{SUFFIX}", schema)
        if part is None:
            part = _merged_rows(folder, schema, run_id)
        if stamp_of(folder) == before:
            rows: list[dict[str, Any]] = part.to_pylist()
            return rows


def _merged_rows(folder: Path, schema: pa.Schema, run_id: str) -> pa.Table:
    files = [path for path in files_of(folder) if path.name.startswith(MERGED)]
    try:
        for path in files:
            check_footer(path)
        return dataset_of(files, schema).to_table(filter=ds.field("run_id") == run_id)
    except FileNotFoundError:  # swapped since: the caller begins again
        return schema.empty_table()
    except (pa.ArrowException, OSError) as error:
        raise DamagedTableError(f"a file of {folder} is damaged: {error}") from error


def dataset_of(files: Sequence[Path], schema: pa.Schema, **how: Any) -> ds.FileSystemDataset:
    """Return files of a table as a dataset, which is read when it is scanned."""
    return ds.FileSystemDataset.from_paths(
        [str(path) for path in files],
        schema=schema,
        format=checked_format(**how),
        filesystem=LocalFileSystem(),
    )


def checked_format(**options: Any) -> ds.ParquetFileFormat:
    """Return how files of datasets are read: each page with its checksum, if it has one."""
    scan = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.ParquetFileFormat(default_fragment_scan_options=scan, **options)


def check_footer(path: Path) -> None:
    """Check what a file says of its own pages, before some of them are read.

    Raises:
        DamagedTableError: it is no Parquet file, or not as it was written.
        FileNotFoundError: it was merged with others, or removed, since it was listed.
    """
    try:
        with path.open("rb") as file:
            check(path, file, pages=False)
            pq.read_metadata(file)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def has_footer(path: Path) -> bool:
    """Say whether a file can be scanned, with a warning that it is left out where not."""
    try:
        check_footer(path)
    except FileNotFoundError as error:
        if path.is_symlink():
            log.warning("left out: %s", damaged(path, error))
        # Merged with others or removed since it was listed: the query begins again.
        return not path.is_symlink()
    except DamagedTableError as error:
        log.warning("left out: %s", error)
        return False
    return True


def nullable(schema: pa.Schema) -> pa.Schema:
    """Return the schema with every column nullable."""
    return pa.schema([field.with_nullable(True) for field in schema], schema.metadata)


def read_part(path: Path, schema: pa.Schema) -> pa.Table | None:
    """Read one file of a table; None where it is not there.

    Raises:
        DamagedTableError: it is not as it was written, no Parquet file, or of other columns.
    """
    try:
        content = path.read_bytes()
        check_content(path, content)
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        return with_schema(file.read(use_threads=False), schema)  # threads cost more than a part
    except FileNotFoundError as error:
        if path.is_symlink():
            raise damaged(path, error) from error
        return None
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def _sound_part(path: Path, schema: pa.Schema) -> pa.Table | None:
    try:
        return read_part(path, schema)
    except DamagedTableError as error:
        log.warning("left out: %s", error)
        return None


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table's columns as ``schema`` has them, NULL where the table has none."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
