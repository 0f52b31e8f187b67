"""A run's record: tables and run folder. Never cached, or a cached run would leave none."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from real_tasks.experiment.commented import commented_yaml
from real_tasks.tasks.cache.stage import store
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.outcome import Outcome, OutcomeTables
from real_tasks.tasks.stages.pictures import FIGURES
from real_tasks.vocabulary.experiment_config import ExperimentConfig, TransferConfig
from storage.artifacts.store import ArtifactRef, sha256_of
from storage.paths import Home
from storage.runs.files import note_checksums
from storage.runs.run import (
    alive,
    end_runs,
    git_commit,
    mark_crashed_runs,
    new_run_id,
    now,
    run_folder,
    write_run,
)
from storage.runs.sharing import pushed_at_end
from storage.runs.used import in_use, note_used
from storage.tables.parquet import write_table
from storage.tables.written import note_written
from storage.tracking.tracker import Tracker
from storage.whole_files import replace

CONFIG = "config.yaml"
RECORD = "run.json"
REPORT = "report.html"
SPECS = "specs"
_PATIENCE_S = 2.0
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
        }
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


def write_page(home: Home, run_id: str, page: str) -> Path:
    """Write the report of a run, which takes the place of an earlier one once it is whole."""
    path = run_folder(home, run_id) / REPORT
    replace(path, page.encode())
    return path


def _digest(config: ExperimentConfig | TransferConfig) -> str:
    if isinstance(config, TransferConfig):
        config = config.model_copy(update={"experiment": config.experiment.without_execution()})
        return sha256_of(config)
    return sha256_of(config.model_dump(exclude={"execution"}))


@task(name="publish-tables", cache_policy=NO_CACHE)
def publish_tables(run_id: str, config: ExperimentConfig, outcome: Outcome) -> list[str]:
    """Write the run's rows of every table; return warnings about the result."""
    tables = OutcomeTables(config, outcome)
    for name, rows in tables.published(run_id).items():
        part = outcome.dataset.key if name == "samples" else run_id
        write_table(Home.current(), name, part, rows)
    left_out = store().facts(outcome.dataset)["source"].get("left_out")
    return [*tables.warnings(), *([f"left out of the data: {left_out}"] if left_out else [])]


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


def _only_pictures(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".png") and name != "pictures.json"]
