"""The comparison of two runs, or of a run and a published ranking, with a page in Prefect."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import ConfigDict, Field

from real_tasks.results.comparing.agreement import PUBLISHED_TOP_K
from real_tasks.results.comparing.published import read_rankings, rows_of_model
from real_tasks.results.comparing.two_runs import (
    compare_runs,
    difference_rows,
    run_comparison_sentences,
)
from real_tasks.results.comparing.with_published import (
    compare_rankings,
    comparison_sentences,
    head_table,
)
from real_tasks.results.summary import Row
from real_tasks.tasks.records.experiment_report import scores_of_run
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError
from storage.paths import Home
from storage.tables.parquet import read_rows, read_run

SHOWN = 20
"""Heads of each ranking on the page."""


class CompareConfig(Frozen):
    """A run, and what it is compared with: another run, or a published ranking."""

    model_config = ConfigDict(title="Comparison")

    run_id: str = Field(
        "", title="Run", description="id of a run; empty: the last completed experiment"
    )
    other_run_id: str = Field(
        "",
        title="Earlier run",
        description="id of the run to compare with; empty: the last completed experiment before it "
        "on the same model and behaviour",
    )
    published: str = Field(
        "",
        title="Published ranking",
        description="CSV file with the columns model, fold, seed, layer, head and roc_auc; where "
        "one is named, the run is compared with it and not with an earlier run",
    )
    published_model: str = Field(
        "", title="Model in that file", description="empty: the run's own, or the only one"
    )
    localizer: str = Field(
        "", title="Localizer", description="whose scores are compared; empty: the run's own"
    )
    top_k: int = Field(
        0,
        ge=0,
        title="K",
        description="how many of the best modules are compared; 0: 48, or less in a small model",
    )

    @property
    def label(self) -> str:
        """What is compared, for the name of a flow run."""
        other = Path(self.published).name or self.other_run_id or "the one before"
        return f"{self.run_id or 'last'} with {other}"


class CompareSummary(Frozen):
    """What was compared, and what came out."""

    run_id: str
    other: str
    sentences: list[str]


@task(name="compare", cache_policy=NO_CACHE)
def compare_now(config: CompareConfig) -> CompareSummary:
    """Compare, and show the result on the run's page.

    Raises:
        StorageError: there is no such run.
        UserInputError: the two are not of the same model and behaviour.
    """
    home = Home.current()
    run, scores = scores_of_run(home, config.run_id or None, config.localizer or None)
    if config.published:
        return _with_ranking(config, run, scores)
    other = _earlier(home, config, run)
    _check_alike(run, other)
    localizer = scores[0]["localizer"]
    _, theirs = scores_of_run(home, other["run_id"], localizer)
    evaluations = [read_run(home, "evaluations", one["run_id"]) for one in (other, run)]
    found = compare_runs((theirs, scores), (evaluations[0], evaluations[1]), config.top_k or None)
    heading = (
        f"{_words(run)}, localizer {localizer}: first {other['run_id']} of "
        f"{other['started_at']:%Y-%m-%d %H:%M}, second {run['run_id']} of "
        f"{run['started_at']:%Y-%m-%d %H:%M}."
    )
    sentences = [heading, *run_comparison_sentences(found)]
    _show(f"{other['run_id']} and {run['run_id']}", sentences)
    if table := difference_rows(found):
        description = "metrics on test questions"
        create_table_artifact(table, key="compared-metrics", description=description)
    return CompareSummary(run_id=run["run_id"], other=other["run_id"], sentences=sentences)


def _with_ranking(config: CompareConfig, run: Row, scores: Sequence[Row]) -> CompareSummary:
    rankings = read_rankings(Path(config.published))
    theirs = rows_of_model(
        rankings, config.published_model or None, run["model"], "published_model"
    )
    found = compare_rankings(theirs, scores, config.top_k or PUBLISHED_TOP_K)
    sentences = comparison_sentences(found)
    _show(f"{run['run_id']} and {Path(config.published).name}", sentences)
    headers, lines = head_table(found, SHOWN)
    table = [dict(zip(headers, line, strict=True)) for line in lines]
    description = "the best heads of both rankings"
    create_table_artifact(table, key="compared-heads", description=description)
    return CompareSummary(run_id=run["run_id"], other=config.published, sentences=sentences)


def _earlier(home: Home, config: CompareConfig, run: Row) -> dict[str, Any]:
    if config.other_run_id:
        return scores_of_run(home, config.other_run_id, None)[0]
    wanted = ("experiment", "completed", *_subject(run))
    alike = [
        other
        for other in read_rows(home, "runs")
        if (other["flow"], other["status"], *_subject(other)) == wanted
        and other["started_at"] < run["started_at"]
    ]
    if not alike:
        raise UserInputError(
            f"there is no completed experiment on {_words(run)} before {run['run_id']}; name a run "
            "in other_run_id, or a CSV file in published"
        )
    return max(alike, key=lambda row: row["started_at"])


def _check_alike(run: Row, other: Row) -> None:
    if _subject(run) != _subject(other):
        raise UserInputError(
            f"{run['run_id']} is on {_words(run)}, {other['run_id']} on {_words(other)}; expected "
            "two runs on the same model and behaviour"
        )


def _subject(run: Row) -> tuple[str, str]:
    return run["model"], run["behaviour"]


def _words(run: Row) -> str:
    return f"{run['behaviour']} in {run['model']}"


def _show(title: str, sentences: list[str]) -> None:
    text = "\n\n".join([f"# {title}", *sentences])
    create_markdown_artifact(text, key="comparison", description=sentences[-1])
