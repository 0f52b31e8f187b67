"""The report of a run, from its tables and its folder alone: artifacts may be gone by then."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from real_tasks.experiment.commented import commented_yaml
from real_tasks.experiment.yaml_files import load_config
from real_tasks.models.chat import chat_format
from real_tasks.report.contents import (
    answer_pairs,
    answer_sample,
    default_queries,
    race_in_words,
    top_modules,
    verdict_changes,
)
from real_tasks.report.page import ReportContent, render_report
from real_tasks.results.findings import causal_agreement, headlines, wording
from real_tasks.results.summary import markdown_table, result_table, table_cells
from real_tasks.tasks.records.leaderboards import leaderboard_of
from real_tasks.tasks.records.pages import show_in_prefect
from real_tasks.tasks.records.recorded import config_file, no_results, read_record, run_facts
from real_tasks.tasks.records.run import RECORD, SPECS, write_page
from real_tasks.tasks.stages.pictures import pictures_of
from real_tasks.vocabulary.errors import UserInputError
from storage.paths import Home
from storage.runs.run import find_run, run_folder
from storage.tables.parquet import read_run
from storage.tables.written import read_whole_run


def scores_of_run(
    home: Home, run_id: str | None, localizer: str | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a run's row, and its scores by one localizer, its own by default.

    Raises:
        StorageError: there is no such run.
        UserInputError: the run has no scores of that localizer; those it has are listed.
    """
    run = find_run(home, run_id, "experiment")
    scores = read_run(home, "module_scores", run["run_id"])
    localizer = localizer or load_config(config_file(home, run["run_id"]), []).localizer.name
    heads = [row for row in scores if row["module_kind"] == "head"]
    mine = [row for row in heads if row["localizer"] == localizer]
    if not mine:
        known = ", ".join(sorted({row["localizer"] for row in heads})) or "nobody"
        raise UserInputError(
            f"the run {run['run_id']} has no scores of heads by {localizer!r}; heads are scored "
            f"there by: {known}"
        )
    return run, mine


def report_content(home: Home, run: dict[str, Any]) -> ReportContent:
    """Return what the report of a run says.

    Raises:
        StorageError: the run did not get as far as results.
    """
    run_id = run["run_id"]
    folder = run_folder(home, run_id)
    if not (folder / RECORD).is_file():
        raise no_results(home, run, "report")
    config = load_config(config_file(home, run_id), [])
    record = read_record(home, run_id, "stages", "versions", "warnings", "device", "source")
    method = config.localizer.name
    names = ("evaluations", "comparisons", "module_scores", "selected_modules", "answers")
    tables = {name: read_whole_run(home, name, run_id) for name in names}
    prompts = (
        {"prompts": chat_format(config.model).described()} if config.model.chat_template else {}
    )
    board = leaderboard_of(home, run)
    pairs = answer_pairs(tables["answers"], method)
    scores = [r for r in tables["module_scores"] if r["module_kind"] == config.module_kind]
    words = wording(read_run(home, "text_scores", run_id), scores, method)
    findings = [said for said in (words, causal_agreement(scores, method)) if said]
    raced = race_in_words(tables["evaluations"])
    search = {"search": raced} if raced else {}
    rivals = [baseline.name for baseline in config.baselines] or ["random"]
    return ReportContent(
        title=f"Steering {run['behaviour']} in {run['model']}",
        facts=run_facts(run) | _facts_of_record(record) | prompts | search,
        results=result_table(tables["evaluations"]),
        max_kl=config.evaluation.max_kl,
        matched_kl=config.evaluation.matched_kl,
        token_scope=config.evaluation.token_scope,
        comparisons=tables["comparisons"],
        leaderboard=(board.headers, board.lines),
        pictures=pictures_of(home, run_id),
        top_modules=top_modules(scores, tables["selected_modules"], method),
        answers=answer_sample(pairs),
        verdict_changes=verdict_changes(pairs),
        config_yaml=commented_yaml(config),
        stage_seconds={stage["stage"]: stage["seconds"] for stage in record["stages"]},
        versions=record["versions"],
        queries=default_queries(run_id, method, rivals[0]),
        paths={
            "this run": _within(home, folder),
            "steering specs": _within(home, folder / SPECS),
            "tables (Parquet)": _within(home, home.tables),
            "MLflow database": _within(home, home.mlflow / "mlflow.db")
            if home.owns_mlflow
            else home.mlflow_place,
        },
        warnings=record["warnings"],
        findings=findings,
        method=method,
    )


@task(name="report", cache_policy=NO_CACHE)
def report(run_id: str) -> str:
    """Write the report, show results and pictures in Prefect; return the report's path."""
    home = Home.current()
    content = report_content(home, find_run(home, run_id))
    path = write_page(home, run_id, render_report(content))
    sentences = headlines(content.results, content.comparisons, content.method)
    sentences += content.findings
    results = markdown_table(content.results, content.method)
    text = "\n\n".join([f"# {content.title}", *sentences, results])
    headers, cells = table_cells(content.results, content.method)
    table = [dict(zip(headers, line, strict=True)) for line in cells]
    show_in_prefect(run_id, text, content.pictures, path, table)
    return str(path)


def _within(home: Home, path: Path) -> str:
    """Name a place in the home by its path there, which stays right when the home is moved."""
    return str(path.relative_to(home.root) if path.is_relative_to(home.root) else path)


def _facts_of_record(record: dict[str, Any]) -> dict[str, str]:
    facts = {
        "device": record["device"],
        "data": "; ".join(f"{name}: {value}" for name, value in record["source"].items()),
        "model revision": record["checkpoint"].get("revision"),
    }
    return {what: fact for what, fact in facts.items() if fact}
