"""Commands at the pipeline's ends: checking one's own data, taking a steered model away."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.terminal.app import HomeOption, RunArgument, app
from flows.terminal.console import out, show_paths
from flows.terminal.environment import use_home
from real_tasks.vocabulary.errors import UserInputError

data = typer.Typer(no_args_is_help=True, help="Look at data files before a run uses them.")
app.add_typer(data, name="data")


class Taken(StrEnum):
    """What a steered model is taken away as."""

    checkpoint = "checkpoint"
    spec = "spec"
    lofit = "lofit"
    control_vector = "control-vector"
    easysteer = "easysteer"
    lora = "lora"
    mlflow = "mlflow"


@data.command()
def check(file: Annotated[Path, typer.Argument(help="JSONL, CSV, JSON or Parquet.")]) -> None:
    """Say what is in a data file, what is wrong with it, and which methods it allows.

    And how well a bag of words tells its aligned answers from the violating ones on questions that
    it did not see: what a localizer finds is more than wording only beyond that.

    Its columns tell what it is: your own questions, TruthfulQA, A/B questions, or conflicts of
    knowledge. Ends with status 1 if something is wrong.

    Example:
    - `real data check questions.jsonl`
    """
    from real_tasks.evaluation.wording import wording_line
    from real_tasks.experiment.needs import allowed_methods
    from real_tasks.questions.data_check import check_file

    found = check_file(file)
    for line in found.lines():
        typer.echo(line)
    for line in allowed_methods(found.data()) if found.parsed.questions else ():
        typer.echo(line)
    if found.enough:
        typer.echo(wording_line(found.data()))
    if not (found.good and found.enough):
        raise typer.Exit(1)


@app.command()
def export(
    run_id: RunArgument = None,
    to: Annotated[Path | None, typer.Option(help="Folder to write; new or empty.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Way of steering; the run's localizer by default.")
    ] = None,
    format: Annotated[Taken, typer.Option(help="What to write.")] = Taken.checkpoint,
    fold: Annotated[int, typer.Option(help="Fold whose directions, K and alpha are taken.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Seed of the localizer; the first one.")] = None,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="With control-vector: add behind blocks what heads add in them."
        ),
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(metavar="DIR_OR_URL", help="Compare a saved or served model, write nothing."),
    ] = None,
    parity: Annotated[
        Path | None,
        typer.Option(help="With --check URL: the real_parity.json that lies in the export."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Take a steered model away, or check one that was taken away.

    `checkpoint`: an ordinary Hugging Face checkpoint, the steering baked into weights and biases.
    That is exact for every affine operator (add, project_out, clamp, replace, scale, affine,
    rotate by an angle) at heads, neurons, attention, MLP and embeddings, at all positions; a gate,
    another scope, keep_norm, mirror, or an operator other than add on the residual stream is
    refused with its reason. `spec`: the steering spec, for any of these and any architecture,
    applied by hooks. `lofit`: the list of heads. `control-vector`: a file of llama.cpp's, for what
    is added to the output of blocks from the second on (`caa`); `--approximate` adds there what is
    added to heads, and says how far off that is. `easysteer`: vectors for EasySteer,
    a fork of vLLM, for what is added to heads and to the output of layers. `lora`: an adapter of
    peft, for what changes weights by a low rank and adds no constant (`steer2edit`, a direction
    taken out of all writers). `mlflow`: a registered
    model that `mlflow models serve` serves. The model card says which of these, llama.cpp and
    servers can do the same.

    Examples:
    - `real export --to steered`: of the last run, the method under study
    - `real export 20261121-101502-3f9a --method iti --format spec --to iti-spec`
    - `real export --check steered`: is it what it should be?
    - `real export --check http://localhost:8000/v1 --parity steered/real_parity.json`: does the
      server steer? (some drop the bias silently)
    """
    current = use_home(home)
    from transformers.utils import logging as transformers_logging

    from real_tasks.export.served import check_export
    from real_tasks.tasks.export.exporting import export_run

    transformers_logging.disable_progress_bar()  # each loading would draw one
    if check is not None:
        if run_id or to:
            other = "--to" if to else "the run"
            raise UserInputError(f"--check {check} writes nothing: leave out {other}, or --check")
        verdict = check_export(check, parity)
        out.print(verdict.sentence(), highlight=False, markup=False)
        raise typer.Exit(0 if verdict.ok else 1)
    made = export_run(current, run_id, method, to, format.value, fold, seed, approximate)
    for sentence in made.sentences:
        out.print(sentence, highlight=False, markup=False)
    show_paths({"written": made.location, "files": ", ".join(made.files)})
    out.print("\nUse it:\n")
    typer.echo(made.snippet)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="What `real export` or `real try` wrote.")],
    repo: Annotated[str, typer.Argument(help="Repository of the Hugging Face Hub: org/name.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is new.")
    ] = False,
) -> None:
    """Upload a steering spec or a baked checkpoint, with its card, to the Hugging Face Hub.

    Needs a token with write access (`hf auth login`).

    Examples:
    - `real export --format spec --to truth`, then `real push truth me/truthful-llama`
    - `real export --to steered`, then `real push steered me/llama-steered --private`
    """
    from real_tasks.export.pushing import push_export

    out.print(push_export(folder, repo, private=private), highlight=False, markup=False)
