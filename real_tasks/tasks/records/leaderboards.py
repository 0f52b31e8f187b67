"""Leaderboards of runs: all methods of each in one table, from its tables alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_tasks.evaluation.labels import headline_metrics
from real_tasks.experiment.methods.known import known_methods, method_names
from real_tasks.experiment.yaml_files import load_config
from real_tasks.results.leaderboard import leaderboard, leaderboard_cells
from real_tasks.results.summary import result_table
from real_tasks.tasks.records.recorded import config_file, finished_experiment
from real_tasks.tasks.stages.pictures import FIGURES
from real_tasks.vocabulary.errors import UserInputError
from storage.paths import Home
from storage.runs.run import run_folder
from storage.tables.parquet import read_rows
from storage.tables.written import read_whole_run

HOW = "`real run deployments/experiments/leaderboard.yaml` compares all methods, in minutes"
PICTURE = "effect_against_kl.png"


@dataclass(frozen=True)
class Leaderboard:
    """The methods of a run.

    Attributes:
        run: its row of the view ``runs``.
        headers, lines: the table.
        matched_kl: KL of the comparison, nats/token.
        absent: methods of the library that the run has not.
        picture: the file of effect against KL.
    """

    run: dict[str, Any]
    headers: list[str]
    lines: list[list[str]]
    matched_kl: float
    absent: list[str]
    picture: Path


def leaderboards(
    home: Home, run_id: str | None, model: str | None, behaviour: str | None, metric: str | None
) -> list[Leaderboard]:
    """Return the leaderboard of a run, or of the last one on each (given) model and behaviour.

    Methods are compared by ``metric``; None: the first of the headline metrics.

    Raises:
        StorageError: there is no such run, or it has no results.
        UserInputError: no run is of that model and behaviour, or has that metric.
    """
    if run_id is not None:
        return [leaderboard_of(home, finished_experiment(home, run_id, "compare"), metric)]
    done = [
        row
        for row in read_rows(home, "runs")
        if (row["flow"], row["status"]) == ("experiment", "completed")
    ]
    last = {(r["model"], r["behaviour"]): r for r in sorted(done, key=lambda r: r["started_at"])}
    asked = [
        run
        for (of_model, of_behaviour), run in last.items()
        if model in (None, of_model) and behaviour in (None, of_behaviour)
    ]
    if not asked:
        raise UserInputError(_none(home, list(last)))
    return [leaderboard_of(home, run, metric) for run in asked]


def _none(home: Home, known: list[tuple[str, str]]) -> str:
    if not known:
        return f"no experiment is completed in {home.root}; {HOW}"
    there = ", ".join(f"{behaviour} in {model}" for model, behaviour in known)
    return f"no completed experiment is of that model and behaviour; there are {there}; {HOW}"


def leaderboard_of(home: Home, run: dict[str, Any], metric: str | None = None) -> Leaderboard:
    """Return the leaderboard of a finished experiment; raise as `leaderboards`."""
    run_id = run["run_id"]
    config = load_config(config_file(home, run_id), [])
    names = ("evaluations", "comparisons", "methods")
    evaluations, comparisons, methods = (read_whole_run(home, name, run_id) for name in names)
    results, main = result_table(evaluations), config.localizer.name
    measured = dict.fromkeys(name for row in results for name in row if row[name] is not None)
    chosen = metric or next(iter(headline_metrics(measured)), "kl")
    known = {row["metric"] for row in comparisons}
    if metric is not None and metric not in known:
        raise UserInputError(
            f"the run {run_id} compares no {metric!r}; it compares {', '.join(sorted(known))}"
        )
    rows = leaderboard(results, comparisons, methods, chosen)
    headers, lines = leaderboard_cells(rows, chosen, main)
    return Leaderboard(
        run,
        headers,
        lines,
        config.evaluation.matched_kl,
        [name for name in known_methods(config) if name not in method_names(config)],
        run_folder(home, run_id) / FIGURES / PICTURE,
    )
