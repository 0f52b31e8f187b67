"""Merging the tables' files of completed runs: thousands of small files make every query slow.

A table's folder is swapped, in one step of the file system, for another one that has the merged
file instead of the parts. So whoever lists it sees every row once: before the swap in the parts,
after it in the merged file; and who opens a file that was merged since is told that it is not there
(the project's own readers begin again then). pyarrow's search of a folder does not tell: files that
go while it looks, it takes for none; programs that use it should list the files and name them. Runs
are never merged before they completed, so that nothing is written to a merged part again.
"""

import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import StorageError
from storage.locks import locked
from storage.paths import Home
from storage.runs.sharing import push
from storage.tables.parquet import (
    MERGED,
    MERGED_PARTS,
    SUFFIX,
    files_of,
    folder_lock,
    merged_parts,
    nullable,
    read_part,
    read_rows,
    with_schema,
)
from storage.tables.schemas import TABLES
from storage.tables.seals import damaged, is_sound, seal, sealable
from storage.tables.written import gone
from storage.whole_files import swap_folders, sync_folder

ROW_GROUP_ROWS = 131_072
"""Rows that a reader skips or reads together: few enough to skip most, enough to read fast."""

Place = tuple[str, str, str]
"""What runs are ordered by: model, behaviour, run. A query that names a model skips the others."""

Order = Mapping[str, Place]

_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compacted:
    """What was merged in a table: files of runs, rows in the merged file, files that it has now."""

    table: str
    parts: int
    rows: int
    files: int


def compact(
    home: Home,
    older_than: timedelta = timedelta(days=1),
    min_parts: int = 100,
    pause_seconds: float = _PAUSE_SECONDS,
) -> list[Compacted]:
    """Merge the files of completed runs, in every table that has enough of them; say which.

    Only one compaction of a home runs at a time; another one waits, and then finds nothing to do.
    One that is killed leaves the tables as they were, or done.

    Args:
        home: whose tables.
        older_than: time since a run's end before which its files are left alone.
        min_parts: files of completed runs below which a table is left as it is.
        pause_seconds: how long files that were merged stay, for readers that have listed them.

    Raises:
        DamagedTableError: a file cannot be read; its table and those after it are as they were. One
            whose seal is broken is left as it is, with a warning.
        StorageError: the file system cannot swap two folders.
        StoreUnavailableError: the store behind the home cannot be reached.
    """
    if not home.tables.is_dir():
        return []
    push(home)  # merged files stay here: what is in them is shared before
    done: list[Compacted] = []
    with locked(home.tables / ".compaction.lock"):
        for what in gone(home, TABLES):
            log.warning("not merged: %s", what)
        order = _places(read_rows(home, "runs"), datetime.now(UTC) - older_than)
        try:
            for name, table in TABLES.items():
                if "run_id" in table.schema.names:
                    done += _compact_table(home, name, order, min_parts)
        finally:
            if done:
                # A reader that has listed a folder's files misses none before it has opened them.
                time.sleep(pause_seconds)
            # Folders that were swapped out, also by a compaction that was killed.
            for folder in home.tables.glob(f".*-{MERGED}*"):
                shutil.rmtree(folder)
    return done


def _places(runs: Iterable[dict[str, Any]], before: datetime) -> Order:
    """Return the completed runs, each with its place in a merged file."""
    return {
        row["run_id"]: (row["model"], row["behaviour"], row["run_id"])
        for row in runs
        if row["status"] == "completed" and row["finished_at"] and row["finished_at"] < before
    }


def _compact_table(home: Home, name: str, order: Order, min_parts: int) -> list[Compacted]:
    folder = home.tables / name
    parts = [path for path in files_of(folder) if path.stem in order and _is_sound(path)]
    if len(parts) < max(min_parts, 1):
        return []
    absorbed = _absorbed(folder, parts)
    new = home.tables / f".{name}-{MERGED}{secrets.token_hex(4)}"
    new.mkdir()
    # A column that an old part lacks is NULL in its rows.
    schema = nullable(TABLES[name].schema)
    merged = new / f"{MERGED}{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}{SUFFIX}"
    rows = _write(_merged(parts, absorbed, order, schema), merged, schema)
    replaced = {path.name for path in (*parts, *absorbed)}
    earlier = merged_parts(folder).items()
    names = {part: merged.name if file in replaced else file for part, file in earlier}
    names |= dict.fromkeys((path.stem for path in parts), merged.name)
    (new / MERGED_PARTS).write_text("\n".join(f"{part} {names[part]}" for part in sorted(names)))
    with folder_lock(home, name, exclusive=True):
        for path in files_of(folder):
            if path.name not in replaced:
                os.link(path, new / path.name)
        sync_folder(new)
        swap_folders(folder, new)
    return [Compacted(name, len(parts), rows, len(files_of(folder)))]


def _absorbed(folder: Path, parts: Sequence[Path]) -> list[Path]:
    """Return the earlier merged files that are no larger than what joins them.

    So their number grows with the logarithm of the runs, and a row is rarely written again.
    """
    size = sum(path.stat().st_size for path in parts)
    merged = (path for path in files_of(folder) if path.name.startswith(MERGED))
    found = [path for path in merged if _is_sound(path)]
    taken = []
    for path in sorted(found, key=lambda path: path.stat().st_size):
        if path.stat().st_size <= size:
            taken.append(path)
            size += path.stat().st_size
    return taken


def _is_sound(path: Path) -> bool:
    sound = is_sound(path)
    if not sound:
        log.warning("left as it is: %s", damaged(path, "it is not as it was written"))
    return sound


def _merged(
    parts: Sequence[Path], absorbed: Sequence[Path], order: Order, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Read all files run by run, runs in their order; one part is in memory at a time."""
    ordered = sorted(parts, key=lambda path: order[path.stem])
    sources = [_parts(ordered, order, schema), *(_runs(path, order, schema) for path in absorbed)]
    for _, table in merge(*sources, key=itemgetter(0)):
        yield table


def _write(tables: Iterable[pa.Table], path: Path, schema: pa.Schema) -> int:
    """Write tables to a file, and return how many rows they have."""
    rows = 0
    schema = sealable(schema)
    with path.open("w+b") as file:
        options = {"compression": "zstd", "write_page_checksum": True}
        with pq.ParquetWriter(file, schema, **options) as writer:
            for group in _groups(tables, schema):
                writer.write_table(group.cast(schema))
                rows += group.num_rows
        seal(file)
        file.flush()
        os.fsync(file.fileno())
    return rows


def _groups(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    waiting, rows = [schema.empty_table()], 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= ROW_GROUP_ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, ROW_GROUP_ROWS)
            waiting = [whole.slice(ROW_GROUP_ROWS)]
            rows -= ROW_GROUP_ROWS
    yield pa.concat_tables(waiting)


def _parts(
    paths: Iterable[Path], order: Order, schema: pa.Schema
) -> Iterator[tuple[Place, pa.Table]]:
    for path in paths:
        part = read_part(path, schema)
        if part is None:
            raise StorageError(f"{path} was removed while it was merged; compact again")
        yield order[path.stem], part


def _runs(path: Path, order: Order, schema: pa.Schema) -> Iterator[tuple[Place, pa.Table]]:
    """Read a merged file's runs, each with its place."""
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = with_schema(file.read_row_group(group), schema)
                encoded = pc.run_end_encode(table["run_id"].combine_chunks())
                ends = encoded.run_ends.to_pylist()
                starts = (0, *ends[:-1])
                for run_id, start, end in zip(
                    encoded.values.to_pylist(), starts, ends, strict=True
                ):
                    yield order.get(run_id, ("", "", run_id)), table.slice(start, end - start)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
