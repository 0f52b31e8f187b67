"""What is kept of a re-scoring: tables, run folder, report, MLflow, event. Never cached.

The report is made from tables and folder alone, as artifacts may be gone.
"""

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound

from real_tasks.report.figures.drift import drift_picture
from real_tasks.report.figures.picture import Picture
from real_tasks.report.page import render_page
from real_tasks.results.drift.rows import (
    DRIFT_METRICS,
    drift_cells,
    drift_sentences,
    empty_drift_row,
    event_numbers,
    threshold_sentence,
)
from real_tasks.results.rows import columns
from real_tasks.results.scores import mean_scores, rows_of, scores_by_run
from real_tasks.results.summary import Row, markdown_grid
from real_tasks.tasks.records.pages import publish_page
from real_tasks.tasks.records.recorded import (
    config_file,
    no_results,
    noted,
    overall_rows,
    read_record,
    run_facts,
)
from real_tasks.tasks.records.run import write_page, write_record
from real_tasks.tasks.records.tracked import record_files
from real_tasks.tasks.rescoring.plan import Rescored, Rescoring
from real_tasks.tasks.rescoring.tables import drift_rows, evaluation_rows, question_counts
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.outcome import module_score_rows, smaller_alphas
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.rescore_config import RescoreConfig
from storage.paths import Home
from storage.runs.run import find_run
from storage.tables.parquet import read_run, write_table

TEMPLATE = "drift.html.j2"
DRIFT_EVENT = "real.rescore.drift"
SUGGESTION_EVENT = "real.experiment.suggested"
EXPERIMENT_DEPLOYMENT = "experiment/experiment"
"""The deployment that an automation may run; see deployments/automations."""


class Found(Frozen):
    """What a re-scoring says: its report, in words, and the thresholds that were passed."""

    report: str
    sentences: tuple[str, ...]
    exceeded: tuple[str, ...] = ()


@task(name="publish-unchanged", cache_policy=NO_CACHE)
def publish_unchanged(run_id: str, plan: Rescoring) -> Found:
    """Leave a trace of a re-scoring that found nothing new: a row and a line in Prefect."""
    home = Home.current()
    data = references.load_dataset(plan.compared.outcome.dataset)
    localizer, kind = plan.experiment.localizer.name, plan.experiment.module_kind
    counts = {"data_questions": len(data.questions), "new_questions": 0, "gone_questions": 0}
    row = empty_drift_row(localizer, kind) | counts | {"exceeded": ""}
    shared = _shared(run_id, plan, plan.compared, data.name)
    write_table(home, "score_drift", run_id, columns([row], **shared))
    _write_record(home, run_id, plan, None, [])
    page = drift_page(home, run_id)
    create_markdown_artifact(drift_text(page), key="results", description=f"result of {run_id}")
    path = write_page(home, run_id, render_page(TEMPLATE, page))
    return Found(report=str(path), sentences=tuple(page["sentences"]))


@task(name="publish-drift", cache_policy=NO_CACHE)
def publish_drift(
    run_id: str, plan: Rescoring, scored: Rescored, stages: list[dict[str, Any]]
) -> Found:
    """Write tables, run folder and report, and show them in Prefect."""
    home = Home.current()
    behaviour = references.load_dataset(scored.outcome.dataset).name
    model = scored.outcome.model(plan.experiment.model).columns
    names = {"run_id": run_id, **model, "behaviour": behaviour}
    write_table(
        home, "module_scores", run_id, columns(module_score_rows(scored.outcome.scores), **names)
    )
    write_table(home, "evaluations", run_id, columns(evaluation_rows(plan, scored), **names))
    shared = _shared(run_id, plan, scored, behaviour) | question_counts(plan, scored)
    rows = columns(drift_rows(home, plan, scored), **shared)
    write_table(home, "score_drift", run_id, rows)
    _write_record(home, run_id, plan, scored, stages)
    page = drift_page(home, run_id)
    path = publish_page(run_id, TEMPLATE, page, drift_text(page))
    passed = [name for row in rows for name in row["exceeded"].split(", ") if name]
    exceeded = tuple(dict.fromkeys(passed))
    return Found(report=str(path), sentences=tuple(page["sentences"]), exceeded=exceeded)


@task(name="record-drift-in-mlflow", cache_policy=NO_CACHE)
def record_drift_in_mlflow(run_id: str, mlflow_run_id: str) -> None:
    """Add the drift over all folds and seeds, pictures, table and report to the run in MLflow."""
    metrics = {
        f"drift/{row['localizer']}/{name}": row[name]
        for row in overall_rows(Home.current(), "score_drift", run_id)
        for name in DRIFT_METRICS
        if row[name] is not None
    }
    record_files(run_id, mlflow_run_id, metrics, "score_drift")


@task(name="warn-of-drift", cache_policy=NO_CACHE)
def warn_of_drift(run_id: str, plan: Rescoring, found: Found) -> bool:
    """Emit the event `DRIFT_EVENT` if a threshold is passed; return whether it was.

    Where experiments are deployed, the event `SUGGESTION_EVENT` follows, with the configuration of
    the experiment that would find a new steering. It names that deployment first, so that an
    automation runs it as the one inferred from the event; from the drift it infers the deployment
    of the re-scoring.
    """
    if not found.exceeded:
        return False
    rows = overall_rows(Home.current(), "score_drift", run_id)
    main = next(row for row in rows if row["exceeded"])
    resource = {
        "prefect.resource.id": f"real.run.{run_id}",
        "prefect.resource.name": f"re-scoring {run_id}",
        "real.model": main["model"],
        "real.behaviour": main["behaviour"],
        "real.baseline": plan.baseline_run_id,
    }
    payload = {
        "run_id": run_id,
        "baseline_run_id": plan.baseline_run_id,
        "compared_run_id": plan.compared_run_id,
        "changed": list(plan.changed),
        "exceeded": list(found.exceeded),
        "sentences": list(found.sentences),
        "report": found.report,
        **event_numbers(main),
        "localizers": [event_numbers(row) for row in rows],
    }
    emit_event(event=DRIFT_EVENT, resource=resource, payload=payload)
    deployment = _experiment_deployment()
    if deployment is not None:
        suggested = {"config": plan.whole.model_dump(mode="json"), "drift": payload}
        emit_event(
            event=SUGGESTION_EVENT, resource=resource, related=[deployment], payload=suggested
        )
    return True


def _experiment_deployment() -> dict[str, str] | None:
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(EXPERIMENT_DEPLOYMENT)
        except ObjectNotFound:
            return None
    return {
        "prefect.resource.id": f"prefect.deployment.{deployment.id}",
        "prefect.resource.role": "deployment",
        "prefect.resource.name": deployment.name,
    }


def _shared(run_id: str, plan: Rescoring, scored: Rescored, behaviour: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "baseline_run_id": plan.baseline_run_id,
        "compared_run_id": plan.compared_run_id,
        **scored.outcome.model(plan.experiment.model).columns,
        "behaviour": behaviour,
        "method": plan.method,
        "changed": bool(plan.changed),
        "what_changed": ", ".join(plan.changed),
    }


def _overflows(plan: Rescoring, scored: Rescored) -> list[str]:
    """Name the folds and seeds whose steering overflows on the questions of now."""
    pairs = [(done, references.load_measured(done.measured)) for done in scored.measured]
    dtype = plan.experiment.model.dtype
    return [
        f"{plan.method}, fold {done.fold}, seed {done.seed}: the steering in use, with alpha "
        f"{found['alpha']:g}, overflows {dtype} on the new questions, so that its gain there is "
        f"unknown; {smaller_alphas(dtype)} in a new run"
        for done, found in pairs
        if found["unsteered"] and not found["steered"]
    ]


def _write_record(
    home: Home, run_id: str, plan: Rescoring, scored: Rescored | None, stages: list[dict[str, Any]]
) -> None:
    record = {
        "stages": stages,
        "warnings": _overflows(plan, scored) if scored else [],
        "rescore": plan.config.model_dump(mode="json"),
        "rescored": scored.model_dump(mode="json") if scored else None,
    }
    write_record(home, run_id, record)


def drift_page(home: Home, run_id: str) -> dict[str, Any]:
    """Return what the report of a re-scoring says; ``overall`` are its rows over folds and seeds.

    Raises:
        StorageError: the run did not get as far as results.
    """
    run, rows = find_run(home, run_id), read_run(home, "score_drift", run_id)
    if not rows:
        raise no_results(home, run, "report")
    config, record = noted(home, run_id, "rescore", RescoreConfig), read_record(home, run_id)
    overall = [row for row in rows if row["fold"] is None]
    headers, lines = drift_cells([row for row in rows if row["changed"]])
    facts = {"baseline": rows[0]["baseline_run_id"], "compared with": rows[0]["compared_run_id"]}
    return {
        "title": f"Re-scoring of {run['behaviour']} in {run['model']}",
        "sentences": [*_sentences(overall, config), *record.get("warnings", ())],
        "pictures": [_picture(home, row) for row in overall if row["changed"]],
        "overall": overall,
        "headers": headers,
        "lines": lines,
        "facts": run_facts(run) | facts,
        "config_yaml": config_file(home, run_id).read_text(encoding="utf-8"),
    }


def drift_text(page: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    parts = [f"# {page['title']}", *page["sentences"]]
    if page["lines"]:
        parts.append(markdown_grid(page["headers"], page["lines"]))
    return "\n\n".join(parts)


def _sentences(overall: Sequence[Row], config: RescoreConfig) -> list[str]:
    first = overall[0]
    if not first["changed"]:
        return [
            f"Nothing is new since the run {first['compared_run_id']}: the same "
            f"{first['data_questions']} questions, model and code. Nothing was scored again."
        ]
    sentences = [
        f"New since the run {first['compared_run_id']}: {first['what_changed']}. Of "
        f"{first['data_questions']} questions {first['new_questions']} are new; "
        f"{first['gone_questions']} are gone."
    ]
    for row in overall:
        passed = [name for name in row["exceeded"].split(", ") if name]
        sentences += drift_sentences(row, row["method"])
        sentences.append(threshold_sentence(passed, config.thresholds))
    return sentences


def _picture(home: Home, row: Row) -> Picture:
    which = row["localizer"], row["module_kind"]
    runs = (read_run(home, "module_scores", row[n]) for n in ("compared_run_id", "run_id"))
    before, after = (mean_scores(scores_by_run(rows_of(run, *which)).values()) for run in runs)
    return drift_picture(before, after, row["localizer"], row["top_k"])
