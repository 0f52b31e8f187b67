"""The command that scores a run again."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.commands.run import places
from flows.terminal.app import HomeOption, app
from flows.terminal.console import out, progress_shown, show_paths
from flows.terminal.environment import use_home


@app.command()
def rescore(
    run_id: Annotated[
        str | None,
        typer.Argument(help="The run of an experiment; the last completed one by default."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="What is new besides the content of files, below behaviour, model or execution; "
            "may be given several times.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of a re-scoring: thresholds and all else.", metavar="FILE"),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Way of steering in use; the run's localizer by default.")
    ] = None,
    against: Annotated[
        Literal["last", "baseline"] | None,
        typer.Option(help="Scores to compare with; the last re-scoring's by default."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Best modules to compare; as many as the run steers.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with status 1 if a threshold is passed.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Score a run's modules again if anything is new, and say how far they have drifted.

    Only what is new is extracted: questions that were appended to a file, say. What the run steers
    with is measured on questions that it never saw, and never changed. With nothing new it ends
    within seconds.

    Examples:
    - `real rescore`: the last experiment, its data as they are now
    - `real rescore 20261121-101502-3f9a --set behaviour.params.path=more.jsonl`
    - `real rescore --set model.revision=v2`: the same questions, a newer model
    - `real rescore --set model.path=./my-llama-2 --strict`: fails in a script where it drifts
    """
    current = use_home(home)
    from real_tasks.experiment.yaml_files import load_rescore_config
    from storage.artifacts.store import prepare_home

    given = {
        "baseline": run_id,
        "method": method,
        "against": against,
        "top_k": top_k,
        "changes": changes or None,
    }
    settings = load_rescore_config(config, given)
    prepare_home(current)

    from flows.commands.launch import launch_rescore

    with progress_shown():
        summary = launch_rescore(settings)
    for sentence in summary.sentences:
        out.print(sentence, highlight=False, markup=False)
    show_paths(summary.lines() | places(current, summary.run_id))
    if strict and summary.exceeded:
        raise typer.Exit(1)
