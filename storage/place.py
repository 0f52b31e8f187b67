"""Where a home is: what names its place absolutely is mended after it was copied, moved or renamed.

MLflow's database knows its artifacts, and Prefect's its results, by absolute locations. A home that
is used elsewhere would write into the one that it was copied from, or find nothing.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.errors import StorageError
from storage.locks import locked
from storage.paths import Home

_PLACE = ".place"
_ARTIFACTS = "/mlflow/artifacts"
_WAIT_SECONDS = 30.0

_Columns = Mapping[str, tuple[str, ...]]

_MLFLOW: _Columns = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}
_PREFECT: _Columns = {
    "task_run_state": ("data",),
    "flow_run_state": ("data",),
    "artifact": ("data",),
    "artifact_collection": ("data",),
}
# A location is a path and what lies below it; JSON has paths somewhere within.
_SET_LOCATION = (
    "UPDATE {t} SET {c} = :new || substr({c}, length(:old) + 1) "
    "WHERE substr({c} || '/', 1, length(:old) + 1) = :old || '/'"
)
_SET_WITHIN = (
    "UPDATE {t} SET {c} = replace({c}, :old || '/', :new || '/') WHERE instr({c}, :old || '/')"
)


def settle(home: Home) -> None:
    """Have the databases of a home name its present place, if it was last used at another one.

    Raises:
        StorageError: a database of the home cannot be read or changed.
    """
    with locked(home.root / _PLACE) as file:
        file.seek(0)
        here, noted = f"{home.root}\n", file.read()
        if noted == here:
            return
        known, here = noted.removesuffix("\n"), str(home.root)
        if known == noted or not Path(known).is_absolute():  # cut off, or no place
            known = ""
        mlflow, prefect = home.mlflow / "mlflow.db", home.prefect / "prefect.db"
        for place in sorted({known, *_begun_at(mlflow)} - {here, ""}):
            uris = (Path(place).as_uri(), home.root.as_uri())
            _replace(mlflow, _MLFLOW, _SET_LOCATION, dict([uris, (place, here)]))
            _replace(prefect, _PREFECT, _SET_WITHIN, _in_json(place, here))
        file.truncate(0)  # last: a mending that is killed is done again
        file.write(f"{here}\n")


@contextmanager
def opened(database: Path, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    """Open a database of the home.

    Raises:
        StorageError: it cannot be opened, or an error of it comes up within the context.
    """
    try:
        address = f"{database.as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise StorageError(
            f"{database} cannot be used ({error}): if another program holds it, try again; if it "
            "is damaged, rename it, and a new one is made (tables, artifacts and reports are not "
            "in it)"
        ) from error


def check_database(database: Path) -> None:
    """Look whether a database of the home is one, if it is there: its server would only not start.

    Raises:
        StorageError: it is damaged.
    """
    if database.exists() or database.is_symlink():
        with opened(database) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _begun_at(mlflow: Path) -> set[str]:
    """Return where the home was when experiments were begun: it may have no note of its place."""
    if not mlflow.exists():
        return set()
    with opened(mlflow) as connection:
        rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    found = {str(row[0]) for row in rows if str(row[0]).endswith(_ARTIFACTS)}
    return {_path(location.removesuffix(_ARTIFACTS)) for location in found}


def _path(location: str) -> str:
    return unquote(urlsplit(location).path) if location.startswith("file:") else location


def _in_json(old: str, new: str) -> dict[str, str]:
    both = (False, True)  # whether letters beyond ASCII are escaped
    texts = [[json.dumps(path, ensure_ascii=ascii)[1:-1] for path in (old, new)] for ascii in both]
    return {was: now for was, now in texts}


def _replace(database: Path, columns: _Columns, update: str, changes: Mapping[str, str]) -> None:
    if not database.exists():
        return
    with opened(database) as connection, connection:
        for table, names in columns.items():
            there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for name in there.intersection(names):
                for old, new in changes.items():
                    statement = update.format(t=table, c=name)
                    connection.execute(statement, {"old": old, "new": new})
