"""What the SQL views are made of: tables in memory, or scans of files where they are large."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from storage.artifacts.activation_columns import DESCRIPTIONS
from storage.paths import Home
from storage.runs.run import dead_runs
from storage.sql.activation_view import ARTIFACT, KIND, LAYER, activations_dataset
from storage.sql.mlflow_view import MLFLOW_RUNS, mlflow_runs
from storage.tables.columns import Table
from storage.tables.parquet import dataset_of, files_of, has_footer, nullable, read_table, stamp_of
from storage.tables.schemas import ACTIVATIONS, RUNS, TABLES
from storage.tables.seals import is_sound
from storage.tables.written import gone

VIEWS: Mapping[str, Table] = {
    **TABLES,
    MLFLOW_RUNS.name: MLFLOW_RUNS,
    ACTIVATIONS.name: ACTIVATIONS,
}
"""What can be queried, by name."""

IN_MEMORY_BYTES = 4_000_000
"""Size of a table's files from which on they are scanned by each query, not copied."""

log = logging.getLogger(__name__)

_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}
# Merged files are sorted by these, so that conditions on them skip most of a file: the scan knows
# it of plain texts. All others are faster as dictionaries.
_SORTED_BY = ("model", "behaviour")


@dataclass
class Loaded:
    """The views that a connection has, and the state of the folders that are yet to be scanned."""

    stamps: dict[Path, tuple[int, int]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def swapped(self) -> bool:
        """Say whether files that are yet to be scanned were merged since."""
        return any(stamp_of(folder) != stamp for folder, stamp in self.stamps.items())

    def damaged(self) -> list[Path]:
        """Return the files yet to be scanned that are not as they were written; reads them all."""
        return [path for path in self.files if not is_sound(path)]


def load_views(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    names: Iterable[str],
    left_out: Collection[Path] = (),
) -> Loaded:
    """Give the connection the views called ``names``.

    Damaged files of tables are left out, with a warning, and those that are known as ``left_out``.

    Raises:
        StorageError: MLflow's database cannot be read.
    """
    loaded, names = Loaded(), list(names)
    for what in gone(home, [name for name in names if name in TABLES]):
        log.warning("left out: %s", what)
    for name in names:
        if name == ACTIVATIONS.name:
            dataset, files = activations_dataset(home, left_out)
            loaded.files += files
            connection.register(name, dataset)
        elif name == MLFLOW_RUNS.name:
            _copy(connection, name, mlflow_runs(home))
            _show_dead(connection, home, name)
        elif _size(home.tables / name) < IN_MEMORY_BYTES:
            _copy(connection, name, read_table(home, name))
            if name == RUNS.name:
                _show_dead(connection, home, name)
        else:
            files, stamp = _listed(home.tables / name)
            sound = [path for path in files if path not in left_out and has_footer(path)]
            loaded.stamps[home.tables / name] = stamp
            loaded.files += sound
            connection.register(name, _scanned(sound, name))
    return loaded


def describe() -> pa.Table:
    """Return the columns of all views: ``view``, ``column``, ``type``, ``description``."""
    rows = []
    for name in VIEWS:
        rows += [_description(name, column) for column in VIEWS[name].schema]
        if name == ACTIVATIONS.name:
            rows += [_description(name, column) for column in (LAYER, KIND, ARTIFACT)]
            values = {"view": name, "type": "FLOAT[]"}
            rows += [values | {"column": c, "description": d} for c, d in DESCRIPTIONS.items()]
    return pa.Table.from_pylist(rows)


def _copy(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("_source", table)
    connection.execute(f"CREATE TABLE {name} AS FROM _source")
    connection.unregister("_source")


def _show_dead(connection: duckdb.DuckDBPyConnection, home: Home, name: str) -> None:
    """Show dead runs as crashed also where a home cannot be written to."""
    if dead := dead_runs(home):
        update = f"UPDATE {name} SET status = 'crashed' WHERE status = 'running' AND run_id IN ?"
        connection.execute(update, [dead])


def _size(folder: Path) -> int:
    size = 0
    for path in files_of(folder):
        try:
            size += path.stat().st_size
        except FileNotFoundError:  # merged or removed since it was listed
            continue
    return size


def _listed(folder: Path) -> tuple[list[Path], tuple[int, int]]:
    """Return all files of one state of the folder, and what tells it from the next."""
    while True:
        stamp, files = stamp_of(folder), files_of(folder)
        if stamp_of(folder) == stamp:
            return files, stamp


def _scanned(files: list[Path], name: str) -> ds.Dataset:
    schema = pa.schema([_encoded(column) for column in nullable(TABLES[name].schema)])
    encoded = [column.name for column in schema if pa.types.is_dictionary(column.type)]
    return dataset_of(files, schema, dictionary_columns=encoded)


def _encoded(column: pa.Field) -> pa.Field:
    if column.type != pa.string() or column.name in _SORTED_BY:
        return column
    return column.with_type(pa.dictionary(pa.int32(), pa.string()))


def _description(view: str, column: pa.Field) -> dict[str, str]:
    text = column.metadata[b"description"].decode()
    kind = _SQL_TYPES[column.type]
    return {"view": view, "column": column.name, "type": kind, "description": text}
