"""The command that tries steering on a model at once, in minutes and without a pipeline."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.terminal.app import HomeOption, ModelArgument, app
from flows.terminal.console import err, out, progress_shown
from flows.terminal.environment import use_home
from real_tasks.vocabulary.file_forms import expanded

if TYPE_CHECKING:
    from real_tasks.experiment.direct.steered import Steered


@app.command("try")
def try_(
    model: ModelArgument,
    questions: Annotated[
        str | None,
        typer.Argument(
            help="File of questions (`real data check` says what is wrong with one), or name of a "
            "behaviour. Without: everyday_myths; for the model demo, demo_truth.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Way of steering; `real methods` lists them.")
    ] = "real",
    minutes: Annotated[
        float, typer.Option(min=0.1, max=10_000, help="About how long: more use more questions.")
    ] = 5,
    max_kl: Annotated[
        float, typer.Option(min=1e-6, max=100, help="Cap on side effects: nats a token of KL.")
    ] = 0.05,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--plain", help="Prompts in the chat template, or as plain text."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the steering, which replaces an earlier one. Without: steered-MODEL.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="Of how questions are parted, and of training.")
    ] = 0,
    home: HomeOption = None,
) -> None:
    """Steer a model towards the true answers of some questions, and see what it gains and costs.

    Learns on some of the questions which modules to steer, chooses on others how strongly, under a
    cap on side effects, and measures on a third part, which nothing was chosen by. Ctrl-C keeps the
    best that was found.

    Examples:
    - `real try demo`: on the embedded model, offline
    - `real try smollm2`: on a real one of 135 M parameters
    - `real try ./my-llama questions.jsonl --minutes 20 --to truthful`
    - `real try smollm2 --method caa`: another way of steering
    """
    current = use_home(home)
    from storage.artifacts.store import prepare_home

    prepare_home(current)  # Prefect wants to write there when it is imported

    from real_tasks.tasks.trying import tried

    name = expanded(model).resolve().name.removesuffix(".gguf")
    folder = to or Path(f"steered-{name}")
    with progress_shown():
        steered = tried(
            model,
            questions,
            method=method,
            minutes=minutes,
            max_kl=max_kl,
            chat=chat,
            seed=seed,
            to=folder,
            say=lambda line: err.print(line, highlight=False, markup=False, soft_wrap=True),
        )
    out.print(f"\n{escape(str(steered))}\n", highlight=False)
    out.print(f"{escape(str(steered.examples()))}\n", highlight=False)
    steered.save(folder)
    out.print(f"saved in {folder}. Next:", highlight=False, markup=False)
    for command in _next(model, questions, folder, steered):
        out.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)


def _next(model: str, questions: str | None, folder: Path, steered: "Steered") -> list[str]:
    """Return the commands that go on from here, as a shell takes them."""
    from real_tasks.questions.behaviours import BEHAVIOURS

    asked = [f"behaviour={questions or steered.data.name}"]
    if questions and questions not in BEHAVIOURS:
        asked = ["behaviour=jsonl", f"behaviour.params.path={questions}"]
    fields = [f"model.path={model}", *asked]
    fields += ["model.chat_template=true"] if steered.asking.chat else []
    run = ["real", "run", *(part for field in fields for part in ("--set", field))]
    return [
        shlex.join(["real", "chat", model, str(folder)]),
        shlex.join(["real", "serve", model, "--spec", f"steered={folder}"]),
        f"{shlex.join(run)}  # compared with other methods",
    ]
