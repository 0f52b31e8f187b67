"""The report of a re-scoring, from its tables and its folder alone; artifacts may be gone."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from real_tasks.report.figures.drift import drift_picture
from real_tasks.report.figures.picture import Picture
from real_tasks.report.page import render_page
from real_tasks.results.drift.rows import drift_cells, drift_sentences, threshold_sentence
from real_tasks.results.scores import mean_scores, scores_by_run
from real_tasks.results.summary import Row
from real_tasks.tasks.records.run import RECORD, config_file, read_record, run_facts, write_page
from real_tasks.vocabulary.rescore_config import RescoreConfig
from storage.errors import StorageError
from storage.paths import Home
from storage.runs.files import damaged_run
from storage.runs.run import find_run, run_folder
from storage.tables.parquet import read_run

TEMPLATE = "drift.html.j2"


def write_drift_report(home: Home, run_id: str) -> Path:
    """Write the HTML report of a re-scoring; return its path."""
    return write_page(home, run_id, render_page(TEMPLATE, drift_page(home, run_id)))


def drift_page(home: Home, run_id: str) -> dict[str, Any]:
    """Return what the report of a re-scoring says; ``overall`` are its rows over folds and seeds.

    Raises:
        StorageError: the run did not get as far as results.
    """
    run, folder = find_run(home, run_id), run_folder(home, run_id)
    rows: list[Row] = [*read_run(home, "score_drift", run_id)]
    if not rows:
        raise StorageError(
            f"the run {run_id} is {run['status']} and has no results to report; `real rescore` "
            "runs it again, and takes from the cache what it did"
        )
    record = read_record(home, run_id, "rescore")
    try:
        config = RescoreConfig.model_validate(record["rescore"])
    except ValidationError as error:
        why = f"rescore: {error.error_count()} errors"
        raise damaged_run(home, run_id, folder / RECORD, why) from error
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
        rule = ["---"] * len(page["headers"])
        table = [page["headers"], rule, *page["lines"]]
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in table))
    return "\n\n".join(parts)


def _sentences(overall: list[Row], config: RescoreConfig) -> list[str]:
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
    scores = []
    for run_id in (row["compared_run_id"], row["run_id"]):
        which = (row["localizer"], row["module_kind"])
        mine = [
            one
            for one in read_run(home, "module_scores", run_id)
            if (one["localizer"], one["module_kind"]) == which
        ]
        scores.append(mean_scores(scores_by_run(mine).values()))
    return drift_picture(scores[0], scores[1], row["localizer"], row["top_k"])
