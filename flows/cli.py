"""The command line. Heavy imports wait until a command needs them, so that help comes at once."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console import out, progress_bars, show_error, show_paths, show_results
from flows.environment import use_home
from real_tasks.errors import UserInputError
from storage.errors import StorageError

USER_ERROR = 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Find the attention heads that carry a behaviour, and steer a model through them.

Start with `real run`: it trains a tiny embedded model, finds the heads that carry truthfulness,
steers through them, and leaves a report, tables to query and an MLflow record.
Everything is offline.
""",
)

HomeOption = Annotated[
    Path | None,
    typer.Option(
        envvar="REAL_HOME",
        help="Folder of everything that runs make; deleting it resets everything. Default: ./.real",
        show_default=False,
    ),
]
ConfigArgument = Annotated[
    Path | None,
    typer.Argument(
        help="YAML file; `real config` prints one. Without it: the demo.", metavar="CONFIG"
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change one field, as `evaluation.max_kl=0.02`; may be given several times.",
    ),
]


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"


@app.command()
def run(
    config: ConfigArgument = None, assignments: SetOption = None, home: HomeOption = None
) -> None:
    """Run an experiment: extract, localize, steer, evaluate, report.

    Stages that were done before, with the same inputs and code, are taken from the cache: changing
    the alphas evaluates again and trains nothing, and a run that was killed goes on where it
    stopped.

    Examples:
    - `real run`: the demo, some minutes the first time
    - `real run --set evaluation.alphas=[1,2,4]`: other strengths, only evaluation runs again
    - `real run --set localizer.params.codebook_size=64`: another codebook
    - `real run --set model.path=./my-llama my.yaml`: your own checkpoint
    """
    current = use_home(home)
    from real_tasks.checks import check_experiment
    from real_tasks.configuration import load_config
    from storage.artifacts import prepare_home

    settings = load_config(config, assignments or [])
    check_experiment(settings)
    prepare_home(current)

    from flows.launch import launch

    with progress_bars():
        summary, results = launch(settings)
    show_results(results)
    for warning in summary.warnings:
        out.print(f"[yellow]warning[/yellow] {warning}")
    cached = sum(int(stage["cached"]) for stage in summary.stages)
    total = sum(int(stage["shards"]) for stage in summary.stages)
    show_paths(
        {
            "run": summary.run_id,
            "tasks": f"{total}, of them {cached} from the cache",
            "report": summary.report,
            "store": str(current.root),
            "MLflow": current.mlflow_uri,
        }
    )
    out.print("Next: [bold]real sql --tables[/bold], or open the report in a browser.")


@app.command()
def config(
    config: ConfigArgument = None, assignments: SetOption = None, home: HomeOption = None
) -> None:
    """Print the effective configuration as YAML, every field with its description.

    What it prints is a valid input of `real run`.

    Examples:
    - `real config > my.yaml`: a file to start from
    - `real config my.yaml --set seeds=[0]`: what a run would use
    """
    use_home(home)
    from real_tasks.configuration import commented_yaml, load_config

    typer.echo(commented_yaml(load_config(config, assignments or [])), nl=False)


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="One SELECT statement (DuckDB).")] = None,
    tables: Annotated[bool, typer.Option("--tables", help="List views and columns.")] = False,
    format: Annotated[Format, typer.Option(help="How rows are printed.")] = Format.table,
    timeout: Annotated[float, typer.Option(help="Seconds after which a query is stopped.")] = 30.0,
    home: HomeOption = None,
) -> None:
    """Query the results of all runs with SQL; nothing can be changed with it.

    Examples:
    - `real sql --tables`: what there is to query
    - `real sql "SELECT method, metric, avg(value) FROM evaluations WHERE split = 'test' GROUP BY
      ALL"`
    - `real sql "SELECT layer, head, avg(roc_auc) AS auc FROM module_scores WHERE localizer = 'real'
      GROUP BY ALL ORDER BY auc DESC LIMIT 10"`
    - `real sql "FROM runs" --format json`
    """
    current = use_home(home)
    from storage.catalog import Catalog
    from storage.formats import format_table

    if tables == (query is not None):
        raise UserInputError("give one query, or --tables to see what there is to query")
    catalog = Catalog(current)
    found = catalog.describe() if query is None else catalog.query(query, timeout)
    typer.echo(format_table(found, format.value), nl=False)


@app.command()
def report(
    run_id: Annotated[
        str | None, typer.Argument(help="The run; the last completed one by default.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Write the HTML report of a run, one self-contained file, and print its path.

    Examples:
    - `real report`: of the last completed run
    - `real report 20261121-101502-3f9a`: of that run (`real sql "FROM runs"` lists them)
    """
    current = use_home(home)
    from real_tasks.tasks.reporting import write_report

    typer.echo(str(write_report(current, run_id)))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; wrong input exits with status 2, anything else that fails with 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(arguments)
    except (UserInputError, StorageError) as error:
        show_error(str(error))
        raise SystemExit(USER_ERROR) from None
    except KeyboardInterrupt:
        show_error("stopped; what is done is kept, and the same command goes on from there")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
