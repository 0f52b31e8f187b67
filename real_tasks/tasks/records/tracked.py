"""A run's record in MLflow: its own, and one for every method."""

import json
from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from real_tasks.evaluation.labels import headline_metrics
from real_tasks.experiment.methods.known import methods_of
from real_tasks.results.summary import result_table, wide_rows
from real_tasks.tasks.records.run import CONFIG, REPORT, SPECS
from real_tasks.tasks.stages.outcome import Outcome, OutcomeTables
from real_tasks.tasks.stages.pictures import FIGURES
from real_tasks.vocabulary.experiment_config import ExperimentConfig, TransferConfig
from storage.paths import Home
from storage.runs.run import run_folder
from storage.tables.parquet import read_rows, read_run
from storage.tracking.tracker import EXPERIMENT, GIT_COMMIT_TAG, Tracker


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
