"""Commands on results: SQL, reports, comparisons; and upkeep of what holds them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.terminal.app import HomeOption, RunArgument, app
from flows.terminal.environment import use_home


class Format(StrEnum):
    """How rows are printed, or written to a file."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:  # nan is not, either
        raise typer.BadParameter(
            f"found {text}, expected seconds, more than 0 and at most 86400, a day"
        )
    return seconds


@app.command()
def sql(
    query: Annotated[
        list[str] | None,
        typer.Argument(
            help="One statement (DuckDB), or @NAME parameter=value ...; without: from a pipe.",
            metavar="[QUERY | @NAME [PARAMETER=VALUE]...]",
            show_default=False,
        ),
    ] = None,
    tables: Annotated[bool, typer.Option("--tables", help="List views and columns.")] = False,
    examples: Annotated[
        bool, typer.Option("--examples", help="List the named queries; with @NAME: show its SQL.")
    ] = False,
    format: Annotated[
        Format | None,
        typer.Option(help="How rows are printed (default: table), or written (the file's ending)."),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --to.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Show all rows of a table on a terminal.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            parser=_seconds, metavar="SECONDS", help="When a query is stopped; up to a day, 86400."
        ),
    ] = 30.0,
    home: HomeOption = None,
) -> None:
    """Query the results of all runs with SQL; nothing can be changed with it.

    Examples:
    - `real sql < my.sql`: statements from a pipe or a file, one by one, up to the first error
    - `real sql --tables`: what there is to query
    - `real sql --examples`: queries that have a name; `real sql @top-heads model=demo k=5` runs one
    - `real sql "SELECT method, metric, avg(value) FROM evaluations WHERE split = 'test' GROUP BY
      ALL"`
    - `real sql "FROM runs" --format json`
    - `real sql "FROM module_scores" --to scores.parquet`: to a file, as Parquet, CSV or JSON
    """
    current = use_home(home)
    from storage.sql.process import start_early

    if not (tables or examples):
        start_early()
    from flows.commands.sql import Output, answer, answer_input, list_queries, list_views

    output = Output(current, format.value if format else None, to, force, every)
    if tables:
        list_views(output, query)
    elif examples:
        list_queries(output, query)
    elif query:
        answer(output, query, timeout)
    else:
        answer_input(output, timeout)


@app.command()
def compact(
    older_than_days: Annotated[
        float, typer.Option(min=0, help="Leave the files of runs that ended later.")
    ] = 1.0,
    min_parts: Annotated[
        int, typer.Option(min=1, help="Leave tables with fewer files of completed runs.")
    ] = 100,
    home: HomeOption = None,
) -> None:
    """Merge the tables' files of completed runs, so that queries over thousands of runs stay fast.

    Readers and running experiments may go on meanwhile: they see every row once.

    Examples:
    - `real compact`: what is worth it; with nothing to do, it says so
    - `real compact --older-than-days 0 --min-parts 1`: all completed runs
    """
    current = use_home(home)
    from pydantic import ValidationError

    from flows.terminal.console import out
    from real_tasks.experiment.parameters import explained
    from real_tasks.tasks.upkeep.compacting import CompactConfig, compact_home
    from real_tasks.vocabulary.errors import UserInputError

    try:
        config = CompactConfig(older_than_days=older_than_days, min_parts=min_parts)
    except ValidationError as error:
        raise UserInputError(explained(error)) from error
    for line in compact_home(current, config):
        out.print(line, highlight=False, markup=False)


@app.command()
def clean(
    remove: Annotated[bool, typer.Option("--remove", help="Remove it, not only list it.")] = False,
    artifact_days: Annotated[
        int, typer.Option(min=0, max=36_500, help="Leave artifacts that were made later.")
    ] = 7,
    run_days: Annotated[
        int, typer.Option(min=0, max=36_500, help="Leave crashed runs of later.")
    ] = 7,
    log_days: Annotated[
        int, typer.Option(min=0, max=36_500, help="Leave logs written later.")
    ] = 30,
    home: HomeOption = None,
) -> None:
    """List, or remove, what no kept run needs: artifacts, left-overs, crashed runs, logs.

    The deployment `clean` does the same on a schedule.

    Examples:
    - `real clean`: what could go, and how large it is
    - `real clean --remove --artifact-days 0`: all artifacts too that no kept run uses
    """
    current = use_home(home)
    from real_tasks.tasks.upkeep.cleaning import CleanConfig, clean_up

    config = CleanConfig(
        dry_run=not remove, artifact_days=artifact_days, run_days=run_days, log_days=log_days
    )
    typer.echo(clean_up(current, config)[1].removeprefix("# "), nl=False)


@app.command()
def report(run_id: RunArgument = None, home: HomeOption = None) -> None:
    """Write the HTML report of a run, one self-contained file, and print its path.

    Examples:
    - `real report`: of the last completed run
    - `real report 20261121-101502-3f9a`: of that run (`real sql "FROM runs"` lists them)
    """
    current = use_home(home)
    from real_tasks.tasks.reports import write_report

    typer.echo(str(write_report(current, run_id)))


@app.command("compare-methods")
def compare_methods(
    run_id: RunArgument = None,
    model: Annotated[
        str | None, typer.Option(help="The model; each of them without.", show_default=False)
    ] = None,
    behaviour: Annotated[
        str | None, typer.Option(help="The behaviour; each of them without.", show_default=False)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric of the differences, as mc2; the first headline one by default.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Show the leaderboard: all methods at equal side effects, and what each takes.

    Each method is shown at its tuned setting and, at equal KL on neutral text, by its differences
    from the unsteered model and from the run's own method, with 95 % intervals. It shows what runs
    have measured: the last one on each model and behaviour, and measures nothing itself.

    Examples:
    - `real run deployments/experiments/leaderboard.yaml`: all methods on the embedded world, first
    - `real compare-methods`: the last runs
    - `real compare-methods --model smollm2 --behaviour everyday_myths --metric mc2`
    - `real sql @leaderboard --to leaderboard.csv`: the same as rows, with all columns
    """
    current = use_home(home)
    from flows.terminal.console import show_leaderboard
    from real_tasks.tasks.records.leaderboards import leaderboards

    for board in leaderboards(current, run_id, model, behaviour, metric):
        show_leaderboard(board)


@app.command("compare-rankings")
def compare_rankings(
    published: Annotated[Path, typer.Argument(help="CSV: model, fold, seed, layer, head, roc_auc")],
    run_id: RunArgument = None,
    model: Annotated[
        str | None, typer.Option(help="Name in the file; the run's own model by default.")
    ] = None,
    localizer: Annotated[
        str | None, typer.Option(help="Whose scores; the run's localizer by default.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many of the best heads to compare.")] = 48,
    show: Annotated[int, typer.Option(help="Heads of each ranking in the table.")] = 20,
    home: HomeOption = None,
) -> None:
    """Compare a run's scores of heads with a published ranking.

    Example:
    - `real compare-rankings head_scores.csv --model Qwen2.5-7B-Instruct --top-k 48`
    """
    current = use_home(home)
    from flows.terminal.console import out, show_grid
    from real_tasks.results.comparing.published import read_rankings, rows_of_model
    from real_tasks.results.comparing.with_published import (
        compare_rankings,
        comparison_sentences,
        head_table,
    )
    from real_tasks.tasks.records.experiment_report import scores_of_run

    run, ours = scores_of_run(current, run_id, localizer)
    theirs = rows_of_model(read_rankings(published), model, run["model"])
    found = compare_rankings(theirs, ours, top_k)
    for sentence in comparison_sentences(found):
        out.print(sentence, highlight=False, markup=False)
    show_grid(*head_table(found, show))
