"""A run's record: tables, run folder, MLflow. Never cached, or a cached run would leave none."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from pydantic import BaseModel, ValidationError

from real_tasks.experiment.commented import commented_yaml
from real_tasks.experiment.methods.known import methods_of
from real_tasks.results.labels import headline_metrics
from real_tasks.results.summary import result_table, wide_rows
from real_tasks.tasks.cache.stage import store
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.outcome import Outcome, OutcomeTables
from real_tasks.tasks.stages.pictures import FIGURES
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig, TransferConfig
from storage.artifacts.store import ArtifactRef, sha256_of
from storage.errors import StorageError
from storage.paths import Home
from storage.runs.files import damaged_run, note_checksums, read_run_json, run_file
from storage.runs.run import (
    alive,
    end_runs,
    find_run,
    git_commit,
    mark_crashed_runs,
    new_run_id,
    now,
    run_folder,
    write_run,
)
from storage.runs.sharing import pushed_at_end
from storage.runs.used import in_use, note_used
from storage.tables.parquet import read_rows, read_run, write_table
from storage.tables.written import note_written
from storage.tracking.tracker import EXPERIMENT, GIT_COMMIT_TAG, Tracker
from storage.whole_files import replace

CONFIG = "config.yaml"
RECORD = "run.json"
REPORT = "report.html"
SPECS = "specs"
_PATIENCE_S = 2.0
_Model = TypeVar("_Model", bound=BaseModel)
_SOFTWARE = ("real-steering", "torch", "transformers", "prefect", "mlflow", "duckdb", "pyarrow")


@dataclass
class Run:
    """A run while it lasts: its row of the view `runs`, its stages' times, its artifacts' keys."""

    row: dict[str, Any]
    stages: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    tracking: PrefectFuture[str] | None = None
    """The start of its record in MLflow, which gives that one's id."""

    @property
    def run_id(self) -> str:
        """The run's name."""
        return str(self.row["run_id"])

    def note(self, **values: Any) -> None:
        """Change the run's row, for everybody to see."""
        self.row |= values
        write_run(Home.current(), self.row)

    def use(self, refs: Sequence[ArtifactRef]) -> None:
        """Keep artifacts as long as the run is kept."""
        self.used.update(ref.key for ref in refs)
        note_used(Home.current(), self.run_id, refs)


@contextmanager
def running(flow: str, config: ExperimentConfig | TransferConfig, behaviour: str) -> Iterator[Run]:
    """Record a run of a flow from its start to its end, however it ends.

    ``config`` is complete, as it is stored with the run; ``behaviour`` may be names of several.
    """
    home = Home.current()
    mark_crashed_runs(home)
    started = now()
    shared = config.experiment if isinstance(config, TransferConfig) else config
    run = Run(
        {
            "run_id": new_run_id(started),
            "flow": flow,
            "started_at": started,
            "finished_at": None,
            "status": "running",
            "model": shared.model.name,
            "model_id": None,
            "behaviour": behaviour,
            "seed": shared.data.split_seed,
            "config_digest": _digest(config),
            "git_commit": git_commit(),
            "mlflow_run_id": None,
        },
    )
    with pushed_at_end(home), in_use(home), alive(home, run.run_id):
        write_run(home, run.row)
        (run_folder(home, run.run_id) / CONFIG).write_text(commented_yaml(config))
        status = "crashed"  # by a signal, if not by an error
        try:
            yield run
            status = "completed"
        except Exception:
            status = "failed"
            raise
        finally:
            rows = [{"run_id": run.run_id, **row} for row in run.timings]
            write_table(home, "stage_timings", run.run_id, rows)
            if status == "completed":
                samples = run.used if flow == "experiment" else ()  # named by their data's key
                note_written(home, run.run_id, {run.run_id, *samples})
                note_checksums(home, run.run_id)
            run.note(status=status, finished_at=now(), mlflow_run_id=_tracked(run))
            if run.row["mlflow_run_id"]:
                Tracker(home).finish(run.row["mlflow_run_id"], status)
            if status == "crashed":  # what it was about to record of a method, too
                end_runs(home, [run.run_id])


def _tracked(run: Run) -> str | None:
    """Return the id of a run's record in MLflow, None where its start failed or takes long."""
    if run.tracking is not None:
        with suppress(Exception):  # whatever kept MLflow from it, the run's own end says more
            return run.tracking.result(timeout=_PATIENCE_S)
    return None


def write_record(home: Home, run_id: str, record: dict[str, Any]) -> None:
    """Note of a run, in its folder, what `read_record` returns."""
    (run_folder(home, run_id) / RECORD).write_text(json.dumps(record, indent=1))


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


def write_page(home: Home, run_id: str, page: str) -> Path:
    """Write the report of a run, which takes the place of an earlier one once it is whole."""
    path = run_folder(home, run_id) / REPORT
    replace(path, page.encode())
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


def _digest(config: ExperimentConfig | TransferConfig) -> str:
    if isinstance(config, TransferConfig):
        config = config.model_copy(update={"experiment": config.experiment.without_execution()})
        return sha256_of(config)
    return sha256_of(config.model_dump(exclude={"execution"}))


@task(name="start-tracking", cache_policy=NO_CACHE)
def start_tracking(row: dict[str, Any], config: ExperimentConfig | TransferConfig) -> str:
    """Start the run's parent run in MLflow and return its id."""
    tags = {"run_id": row["run_id"], "flow": row["flow"]}
    if row["git_commit"]:
        tags[GIT_COMMIT_TAG] = row["git_commit"]
    name = f"{row['model']} {row['behaviour']} {row['run_id']}"
    home = Home.current()
    tracker = Tracker(home)
    if not home.owns_mlflow:  # who finds a dead run ends it in the home's own record alone
        rows = read_rows(home, "runs")
        tracker.end_crashed({row["run_id"] for row in rows if row["status"] == "crashed"})
    run_id = tracker.start_run(EXPERIMENT, name, _flat(config.model_dump()), tags)
    for ended in read_run(home, "runs", row["run_id"]):
        if ended["status"] != "running":  # meanwhile, without this
            tracker.finish(run_id, ended["status"])
    return run_id


@task(name="publish-tables", cache_policy=NO_CACHE)
def publish_tables(run_id: str, config: ExperimentConfig, outcome: Outcome) -> list[str]:
    """Write the run's rows of every table; return warnings about the result."""
    tables = OutcomeTables(config, outcome)
    for name, rows in tables.published(run_id).items():
        part = outcome.dataset.key if name == "samples" else run_id
        write_table(Home.current(), name, part, rows)
    return tables.warnings()


@task(name="fill-run-folder", cache_policy=NO_CACHE)
def fill_run_folder(
    run_id: str,
    outcome: Outcome,
    pictures: ArtifactRef,
    stages: list[dict[str, Any]],
    warnings: list[str],
) -> None:
    """Write what the report needs and people open: pictures, steering specs, facts."""
    folder = run_folder(Home.current(), run_id)
    shutil.copytree(store().open(pictures), folder / FIGURES, ignore=_only_pictures)
    for item in outcome.evaluations:
        spec = store().open(item.evaluation) / references.SPEC
        if spec.is_dir():
            target = folder / SPECS / item.method / f"fold-{item.fold}-seed-{item.seed}"
            shutil.copytree(spec, target)
    record = {
        "stages": stages,
        "warnings": warnings,
        "versions": {name: metadata.version(name) for name in _SOFTWARE},
        "device": store().facts(next(iter(outcome.activations.values()))[0])["device"],
        "source": store().facts(outcome.dataset)["source"],
        "checkpoint": store().facts(outcome.checkpoint),
        "outcome": outcome.model_dump(mode="json"),
    }
    write_record(Home.current(), run_id, record)


@task(name="record-in-mlflow", cache_policy=NO_CACHE)
def record_in_mlflow(run_id: str, parent: str, config: ExperimentConfig, outcome: Outcome) -> None:
    """Add metrics, pictures, score table and specs: the experiment's own and a run per method."""
    home = Home.current()
    tracker, folder = Tracker(home), run_folder(home, run_id)
    rows = OutcomeTables(config, outcome).rows["evaluations"]
    results = {row["method"]: row for row in result_table(rows)}
    for method in methods_of(config):
        result = {n: v for n, v in results[method.name].items() if isinstance(v, float | int)}
        validation = [r for r in rows if r["method"] == method.name and r["split"] == "validation"]
        child = tracker.child_run(
            parent,
            method.name,
            {name: value for name, value in method.model_dump().items() if value is not None},
            {**{f"test/{name}": value for name, value in result.items()}, **_curves(validation)},
            {"run_id": run_id},
        )
        if (folder / SPECS / method.name).is_dir():
            tracker.log_artifacts(child, [folder / SPECS / method.name], "steering_specs")
    main = results.get(config.localizer.name, {})
    metrics = {f"test/{n}": v for n, v in main.items() if isinstance(v, float)}
    record_files(run_id, parent, metrics, "module_scores")


def record_files(run_id: str, parent: str, metrics: dict[str, float], table: str) -> None:
    """Add to the run ``parent`` in MLflow: metrics, configuration, pictures, a table, report."""
    home = Home.current()
    tracker, folder = Tracker(home), run_folder(home, run_id)
    tracker.log_metrics(parent, metrics)
    rows = home.tables / table / f"{run_id}.parquet"
    tracker.log_artifacts(parent, [folder / CONFIG, folder / FIGURES, rows, folder / REPORT])


def _curves(validation: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Validation metrics over alpha, in thousandths: MLflow's steps are whole numbers."""
    points: dict[tuple[str, int], list[float]] = {}
    for row in wide_rows(validation):
        for metric in (*headline_metrics(row), "kl", "cross_entropy"):
            if row["alpha"] is not None and metric in row:
                points.setdefault((metric, round(1000 * row["alpha"])), []).append(row[metric])
    curves: dict[str, list[tuple[int, float]]] = {}
    for (metric, step), values in sorted(points.items()):
        curves.setdefault(f"validation/{metric}", []).append((step, sum(values) / len(values)))
    return curves


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            plain = value if isinstance(value, str | int | float) else json.dumps(value)
            flat[prefix + name] = plain
    return flat


def _only_pictures(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".png") and name != "pictures.json"]
