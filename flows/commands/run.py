"""Commands that run flows, and those that show what a flow would do."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.terminal.app import ConfigArgument, HomeOption, SetOption, app
from flows.terminal.console import (
    out,
    progress_shown,
    show_paths,
    show_results,
    show_transfer,
    show_warning,
)
from flows.terminal.environment import use_home
from storage.paths import Home

if TYPE_CHECKING:
    from real_tasks.experiment.prepared import Prepared
    from real_tasks.experiment.transfer import PreparedTransfer

RunnerOption = Annotated[
    Literal["thread", "ray", "dask"] | None,
    typer.Option(
        help="What shards of work run on; short for `--set execution.runner=...`. A cluster that "
        "exists is named by `--set execution.address=...`.",
        show_default=False,
    ),
]


@app.command()
def run(
    config: ConfigArgument = None,
    assignments: SetOption = None,
    runner: RunnerOption = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out bad lines of the data file, and list them."),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Run an experiment: extract, localize, steer, evaluate, report.

    Stages that were done before, with the same inputs and code, are taken from the cache: changing
    the alphas evaluates again and trains nothing, and a run that was killed goes on where it
    stopped.

    Examples:
    - `real run`: the demo, some minutes the first time
    - `real run --set evaluation.alphas=[1,2,4]`: other strengths, only evaluation runs again
    - `real run --set module_kind=layer --set evaluation.top_k=[1,2]`: whole layers, not heads
    - `real run --set model.path=./my-llama my.yaml`: your own checkpoint
    - `real run model.yaml behaviour.yaml`: several files, the later ones on top
    - `real run --runner ray my.yaml`: shards on all GPUs of this machine, one each
    """
    current = use_home(home)
    from real_tasks.experiment.prepared import neutral_in_words
    from real_tasks.experiment.yaml_files import load_prepared

    skipping = ["behaviour.params.skip_bad=true"] if skip_bad else []
    prepared = load_prepared(config, [*assigned(assignments, runner), *skipping])
    if prepared.config.evaluation.neutral:
        show_paths({"neutral text": neutral_in_words(prepared)})
    _run(current, prepared, show_results)
    out.print("Next: [bold]real sql --tables[/bold], or open the report in a browser.")


@app.command()
def transfer(
    config: ConfigArgument = None,
    assignments: SetOption = None,
    runner: RunnerOption = None,
    home: HomeOption = None,
) -> None:
    """Try what was found on each behaviour on every other: a matrix of gains.

    The files may be those of an experiment, with the list `behaviours` besides.

    Examples:
    - `real transfer`: two behaviours of the demo
    - `real transfer --set 'behaviours=[demo_truth, demo_conflict]'`: two others
    - `real transfer model.yaml behaviours.yaml`: your own
    """
    current = use_home(home)
    from real_tasks.experiment.yaml_files import load_prepared_transfer

    _run(current, load_prepared_transfer(config, assigned(assignments, runner)), show_transfer)


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
    from real_tasks.experiment.commented import commented_yaml
    from real_tasks.experiment.yaml_files import load_config

    typer.echo(commented_yaml(load_config(config, assignments or [])), nl=False)


def _run(
    home: Home,
    prepared: "Prepared | PreparedTransfer",
    show: Callable[[Sequence[dict[str, Any]]], None],
) -> None:
    from storage.artifacts.store import prepare_home

    prepare_home(home)  # Prefect wants to write there when it is imported

    from flows.running.own_server import serving

    with serving(home), progress_shown():
        from flows.commands.launch import launch

        summary, rows = launch(prepared)
    show(rows)
    for warning in summary.warnings:
        show_warning(warning)
    show_paths(summary.lines() | places(home, summary.run_id))


def assigned(assignments: list[str] | None, runner: str | None) -> list[str]:
    """Return the assignments of `--set`, and that of `--runner` where it is given."""
    return [*(assignments or []), *([f"execution.runner={runner}"] if runner else [])]


def places(home: Home, run_id: str) -> dict[str, str]:
    """Return where a run's results are, by what they are."""
    from real_tasks.tasks.records.pages import mlflow_page
    from storage.runs.run import find_run

    shared = {"store": home.store} if home.store else {}
    page = mlflow_page(home, find_run(home, run_id)["mlflow_run_id"])
    return {"home": str(home.root), **shared, "MLflow": page or home.mlflow_place}
