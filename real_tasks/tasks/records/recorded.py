"""What a run has left in its folder and its tables, read again."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from real_tasks.tasks.records.run import CONFIG, RECORD
from real_tasks.vocabulary.errors import UserInputError
from storage.errors import StorageError
from storage.paths import Home
from storage.runs.files import damaged_run, read_run_json, run_file
from storage.runs.run import find_run, run_folder
from storage.tables.parquet import read_run

_Model = TypeVar("_Model", bound=BaseModel)


def read_record(home: Home, run_id: str, *parts: str) -> dict[str, Any]:
    """Return what a run noted of itself, which has ``parts``.

    Raises:
        StorageError: it is missing or damaged.
    """
    return read_run_json(home, run_id, RECORD, *parts)


def noted(home: Home, run_id: str, part: str, kind: type[_Model]) -> _Model:
    """Return a part of what a run noted of itself, as what it is.

    Raises:
        StorageError: it is missing or damaged.
    """
    record = read_record(home, run_id, part)
    try:
        return kind.model_validate(record[part])
    except ValidationError as error:
        path = run_folder(home, run_id) / RECORD
        raise damaged_run(home, run_id, path, f"{part}: {error.error_count()} errors") from error


def no_results(home: Home, run: dict[str, Any], to: str) -> StorageError:
    """Return the error that a run did not get as far as results, and how to go on."""
    command = {"experiment": "run"}.get(run["flow"], run["flow"])
    config = "" if command == "rescore" else f" {run_folder(home, run['run_id']) / CONFIG}"
    return StorageError(
        f"the run {run['run_id']} is {run['status']} and has no results to {to}; `real {command}"
        f"{config}` runs it again, and takes from the cache what it did"
    )


def finished_experiment(home: Home, run_id: str | None, to: str) -> dict[str, Any]:
    """Return the row of an experiment's run, the last completed one without a name.

    Raises:
        StorageError: there is no such run, or it has no results ``to`` do something with.
        UserInputError: it is of another flow.
    """
    run = find_run(home, run_id, "experiment")
    if run["flow"] != "experiment":
        raise UserInputError(
            f"the run {run['run_id']} is of the flow {run['flow']!r}; expected an experiment's, as "
            "`real sql \"FROM runs WHERE flow = 'experiment'\"` lists them"
        )
    if not (run_folder(home, run["run_id"]) / RECORD).is_file():
        raise no_results(home, run, to)
    return run


def overall_rows(home: Home, table: str, run_id: str) -> list[dict[str, Any]]:
    """Return a run's rows over all folds and seeds."""
    return [row for row in read_run(home, table, run_id) if row["fold"] is None]


def config_file(home: Home, run_id: str) -> Path:
    """Return the file of a run's whole configuration.

    Raises:
        StorageError: it is missing or damaged; an empty one would be the demo's.
    """
    path = run_file(home, run_id, CONFIG)
    if not path.is_file() or not path.stat().st_size:
        raise damaged_run(home, run_id, path, "it is empty")
    return path


def run_facts(run: dict[str, Any]) -> dict[str, str]:
    """Return what a report says of a row of the view `runs`, by what it is."""
    return {
        "run": run["run_id"],
        "started": f"{run['started_at']:%Y-%m-%d %H:%M:%S} UTC",
        "model": run["model"],
        "behaviour": run["behaviour"],
        "split seed": str(run["seed"]),
        "code": run["git_commit"] or "not from a git checkout",
        "MLflow run": run["mlflow_run_id"] or "not recorded",
        "configuration": run["config_digest"],
    }
