"""What completed runs wrote into tables: a file that is gone is missed by name, whoever removed it.

The record lies in the run's folder. Runs of earlier versions have none, and are not missed.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import StorageError
from storage.paths import Home
from storage.references import checksum
from storage.tables.parquet import MERGED, files_of, merged_parts, read_run, stamp_of
from storage.tables.schemas import TABLES

SUMS = "SHA256SUMS"
"""File in the folder of a completed run."""
USED = "artifacts.jsonl"
"""File in the folder of a run: the artifacts that it uses, a line each."""
WRITTEN = "tables.json"
"""File in the folder of a completed run: by table, the parts that it wrote."""


def note_written(home: Home, run_id: str, parts: Collection[str]) -> None:
    """Write down which of the tables' files are the run's: those of ``parts`` that are there.

    Parts are the run's own, and keys of what it used; nothing of them was merged yet.
    """
    found = {
        name: [path.stem for path in files_of(home.tables / name) if path.stem in parts]
        for name in TABLES
    }
    text = json.dumps({name: mine for name, mine in found.items() if mine}, indent=1)
    (home.runs / run_id / WRITTEN).write_text(text, encoding="utf-8")


def gone(home: Home, names: Iterable[str]) -> Iterator[str]:
    """Say, a sentence each, of which completed runs rows of the tables ``names`` are gone."""
    records = dict(_records(home))
    for name in names:  # after the records: a run's record is written after its tables
        wrote = {run_id: record.get(name, ()) for run_id, record in records.items()}
        here = parts_of(home.tables / name) if any(wrote.values()) else frozenset()
        missing = [run_id for run_id, parts in wrote.items() if not here.issuperset(parts)]
        merged = _runs_in_merged(home.tables / name) if missing else frozenset()
        for run_id in missing:
            if run_id not in merged and _is_as_left(home.runs / run_id):
                yield gone_rows(home, name, run_id, records[run_id])


def gone_rows(home: Home, name: str, run_id: str, wrote: Collection[str] = ()) -> str:
    """Say that a run's rows of a table are gone, and how to go on.

    All tables that it ``wrote`` tell a transfer or a re-scoring from an experiment.
    """
    command = "transfer" if "transfer" in wrote else "run"
    again = f"`real {command} {home.runs / run_id / 'config.yaml'}` runs its configuration again"
    if "score_drift" in wrote:
        again = "`real rescore` compares again what is new since the last re-scoring that is whole"
    return (
        f"the rows of the run {run_id} in {home.tables / name} are gone; {again}: what is in the "
        f"cache is not made anew. Without the folder {home.runs / run_id} they are not missed"
    )


def read_whole_run(home: Home, name: str, run_id: str) -> list[dict[str, Any]]:
    """Read the rows of a run that has written the table, be they none; see ``read_run``.

    Raises:
        StorageError: the run's file is gone, or damaged.
    """
    if run_id not in parts_of(home.tables / name):
        raise StorageError(gone_rows(home, name, run_id))
    return read_run(home, name, run_id)


def parts_of(folder: Path) -> frozenset[str]:
    """Return the names of the parts of a table's folder, those in its merged files as well."""
    while True:
        before = stamp_of(folder)
        files = {path.stem for path in files_of(folder)}
        merged = {Path(name).stem for name in files if name.startswith(MERGED)}
        parts = merged_parts(folder).items()
        if stamp_of(folder) == before:
            break
    there = {part for part, file in parts if (Path(file).stem in merged if file else merged)}
    return frozenset(files | there)


def _runs_in_merged(folder: Path) -> frozenset[str]:
    """Return the runs that have rows in merged files: the list of these may be damaged itself."""
    found: set[str] = set()
    for path in files_of(folder):
        try:
            if path.name.startswith(MERGED):
                found.update(pc.unique(pq.read_table(path, columns=["run_id"])[0]).to_pylist())
        except (pa.ArrowException, OSError):  # damaged, which is said where its rows are read
            continue
    return frozenset(found)


def _records(home: Home) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Read all records; one that is damaged says nothing, and nothing else is lost then."""
    for path in sorted(home.runs.glob(f"[!.]*/{WRITTEN}")):
        try:
            found = json.loads(path.read_bytes())
            yield path.parent.name, {name: [*map(str, parts)] for name, parts in found.items()}
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            continue


def _is_as_left(folder: Path) -> bool:
    """Say whether the record of a completed run is there and has its checksum."""
    try:
        return f"{checksum(folder / WRITTEN)}  {WRITTEN}" in (folder / SUMS).read_text(
            errors="replace"
        )
    except OSError:
        return False
