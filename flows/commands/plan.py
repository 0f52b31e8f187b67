"""The command that says what an experiment will take, before it runs."""

import json
from typing import Annotated, Any

import typer

from flows.commands.results import Format
from flows.terminal.app import ConfigArgument, HomeOption, SetOption, app
from flows.terminal.console import out, show_grid, show_warning
from flows.terminal.environment import use_home
from real_tasks.vocabulary.errors import UserInputError

_MOST = 1e21
_FORMS = {"tasks": ",", "model_tokens": ",.0f", "flops": ".1e"}


@app.command()
def plan(
    config: ConfigArgument = None,
    assignments: SetOption = None,
    memory: Annotated[
        float | None, typer.Option(help="GB that a device has: warn of what needs more.")
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(max=10**12, help="Number of questions, where the data are not here."),
    ] = None,
    answers_per_question: Annotated[
        float | None, typer.Option(help="Answers to each of them; 2 without.")
    ] = None,
    tokens: Annotated[
        float | None,
        typer.Option(help="Tokens read for an answer (30 without); what answers share, once."),
    ] = None,
    prompt_tokens: Annotated[
        float | None, typer.Option(help="Tokens of a whole prompt with an answer, if more.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How rows are printed.")] = Format.table,
    home: HomeOption = None,
) -> None:
    """Say what an experiment will take: bytes, memory, tasks, FLOPs.

    Loads neither weights nor activations, and counts what is done already as if it were not.

    Examples:
    - `real plan`: the demo
    - `real plan model.yaml behaviour.yaml paper.yaml --memory 80`
    - `real plan model.yaml --questions 800 --answers-per-question 7 --tokens 12`: without the data
    """
    use_home(home)
    from real_tasks.experiment.planning.data_size import size_of_behaviour, stated_size
    from real_tasks.experiment.yaml_files import load_config

    stated = {
        "--answers-per-question": answers_per_question,
        "--tokens": tokens,
        "--prompt-tokens": prompt_tokens,
    }
    for name, value in {**stated, "--memory": memory}.items():
        if value is not None and not 0 < value <= _MOST:
            raise UserInputError(
                f"{name} is {value}; numbers have to be positive, and at most {_MOST:g}"
            )
    for name, value in stated.items():
        if value is not None and questions is None:
            raise UserInputError(
                f"{name} says how long data are that are not here; give --questions as well"
            )
    if format not in (Format.table, Format.json):
        raise UserInputError("a plan is two tables: choose --format table or json")
    settings = load_config(config, assignments or [])
    if questions is None:
        size = size_of_behaviour(settings)
    else:
        size = stated_size(questions, answers_per_question or 2.0, tokens or 30.0, prompt_tokens)
    _print_plan(settings, size, memory, format)


def _print_plan(settings: Any, size: Any, memory: float | None, format: Format) -> None:
    from real_tasks.experiment.planning.plan import plan_experiment
    from real_tasks.experiment.planning.rows import fit_sentences, plan_rows, stage_rows

    made = plan_experiment(settings, size)
    needs = plan_rows(made)
    stages = stage_rows(made)
    warnings = fit_sentences(made, memory * 1e9) if memory else []
    if format is Format.json:
        typer.echo(json.dumps({"needs": needs, "stages": stages, "warnings": warnings}, indent=1))
        return
    show_grid(
        ("what", "needed"), [(row["what"], _told(row["value"], row["unit"])) for row in needs]
    )
    show_grid(
        ("stage", "tasks", "tokens through the model", "FLOPs"),
        [(one["stage"], *(f"{one[n]:{form}}" for n, form in _FORMS.items())) for one in stages],
    )
    if not made.model.counted:
        out.print("The model's size follows from its shape: its config.json is not here.")
    for warning in warnings:
        show_warning(warning)


def _told(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e9:,.1f} GB" if value >= 1e8 else f"{value / 1e6:,.1f} MB"
    if unit == "parameters":
        return f"{value / 1e9:,.2f} B" if value >= 1e8 else f"{value / 1e6:,.2f} M"
    return f"{value:,.0f} {unit}"
