"""The record of a transfer: tables, run folder, report, MLflow. Never cached."""

import re
from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from real_tasks.evaluation.gain import OBJECTIVE
from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.evaluation.transfer import TransferCell, transfer_rows
from real_tasks.experiment.transfer import behaviour_labels
from real_tasks.report.figures.transfer import transfer_picture
from real_tasks.results.findings import transfer_sentences
from real_tasks.results.rows import columns
from real_tasks.tasks.records.pages import publish_page
from real_tasks.tasks.records.recorded import (
    config_file,
    no_results,
    overall_rows,
    read_record,
    run_facts,
)
from real_tasks.tasks.records.run import write_record
from real_tasks.tasks.records.tracked import record_files
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.outcome import Transferred, smaller_alphas
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import TransferConfig
from storage.paths import Home
from storage.runs.run import find_run
from storage.tables.parquet import write_table

TEMPLATE = "transfer.html.j2"


@task(name="publish-transfer", cache_policy=NO_CACHE)
def publish_transfer(
    run_id: str,
    config: TransferConfig,
    objectives: Sequence[tuple[str, ...]],
    cells: Sequence[Transferred],
) -> list[str]:
    """Write the run's rows of the table ``transfer``; each behaviour has an objective.

    Returns:
        What a reader must know: where steering overflows, which is left out, and where there is
        none.

    Raises:
        UserInputError: steering overflows everywhere.
    """
    experiment = config.experiment
    found = [(cell, references.load_measured(cell.measured)) for cell in cells]
    warnings = [text for pair in found if (text := _warning(*pair, experiment.model.dtype))]
    kept = [pair for pair in found if pair[1]["steered"]]
    if not kept:
        raise UserInputError("; ".join(warnings))
    rows = transfer_rows(
        [TransferCell(c.source, c.target, c.fold, c.seed, found) for c, found in kept],
        config.method,
        dict(zip(behaviour_labels(config.behaviours), objectives, strict=True)),
        experiment.evaluation.bootstrap_samples,
        config.metrics,
    )
    run = find_run(Home.current(), run_id)
    named = columns(rows, run_id=run_id, model=run["model"], model_id=run["model_id"])
    write_table(Home.current(), "transfer", run_id, named)
    return warnings


def _warning(cell: Transferred, found: dict[str, Any], dtype: str) -> str | None:
    where = f"in fold {cell.fold} with seed {cell.seed}"
    if not found["steered"]:
        return (
            f"what was found on {cell.source}, with alpha {found['alpha']:g}, overflows {dtype} on "
            f"{cell.target} {where}, which is left out; {smaller_alphas(dtype)}"
        )
    if "alpha" in found or cell.source != cell.target:
        return None
    return (
        f"nothing is steered by what was found on {cell.source} {where}: no strength stays in "
        f"the range of {dtype} and under evaluation.max_kl; {smaller_alphas(dtype)}"
    )


@task(name="fill-transfer-folder", cache_policy=NO_CACHE)
def fill_transfer_folder(run_id: str, stages: list[dict[str, Any]], warnings: list[str]) -> str:
    """Write pictures and report into the run's folder, show them in Prefect; return the report."""
    home = Home.current()
    write_record(home, run_id, {"stages": stages, "warnings": warnings})
    page = transfer_page(home, run_id)
    text = "\n\n".join([f"# {page['title']}", *page["sentences"]])
    return str(publish_page(run_id, TEMPLATE, page, text))


def transfer_page(home: Home, run_id: str) -> dict[str, Any]:
    """Return what the report of a transfer says.

    Raises:
        StorageError: the run did not get as far as results.
    """
    run, overall = find_run(home, run_id), overall_rows(home, "transfer", run_id)
    if not overall:
        raise no_results(home, run, "report")
    found = {row["metric"] for row in overall}
    metrics = [name for name in (OBJECTIVE, *headline_metrics(found)) if name in found]
    return {
        "title": f"Transfer between behaviours in {run['model']}",
        "sentences": [
            *transfer_sentences(overall),
            *read_record(home, run_id, "stages").get("warnings", ()),
        ],
        "pictures": [transfer_picture(overall, metric) for metric in metrics],
        "rows": [row | {"metric": metric_label(row["metric"])} for row in overall],
        "facts": run_facts(run),
        "config_yaml": config_file(home, run_id).read_text(encoding="utf-8"),
    }


@task(name="record-transfer-in-mlflow", cache_policy=NO_CACHE)
def record_transfer_in_mlflow(run_id: str, mlflow_run_id: str) -> None:
    """Add the gains, the pictures and the report to the run in MLflow."""
    gains = {
        # Only characters that MLflow allows in a name.
        re.sub(r"[^\w./ -]", "-", f"gain/{row['source']}-to-{row['target']}/{row['metric']}"): (
            float(row["gain"])
        )
        for row in overall_rows(Home.current(), "transfer", run_id)
    }
    record_files(run_id, mlflow_run_id, gains, "transfer")
