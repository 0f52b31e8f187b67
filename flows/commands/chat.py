"""The command that talks with a model in the terminal, steered or not."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.serve import (
    DeviceOption,
    Dtype,
    DtypeOption,
    RevisionOption,
    check_specs,
    loaded_model,
)
from flows.terminal.app import HomeOption, ModelArgument, app
from flows.terminal.console import err
from flows.terminal.environment import use_home
from real_tasks.vocabulary.errors import UserInputError


@app.command()
def chat(
    model: ModelArgument,
    spec: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of steering specs; several steer at once.", metavar="[SPEC]..."
        ),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Times as strongly as tuned; 0 not at all.")
    ] = 1.0,
    system: Annotated[str, typer.Option(help="What the system says.")] = "",
    temperature: Annotated[
        float, typer.Option(min=0, max=2, help="0: the likeliest words; 1: as the model draws.")
    ] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    home: HomeOption = None,
) -> None:
    """Talk with a model in the terminal, steered by specs, and compare with and without.

    Within the chat `/compare` answers the next question twice, `/strength 2` steers twice as
    strongly, `/off` and `/on` switch; `/help` lists the rest. What was said is kept for the next
    answer. The model's chat template is used; one without a template goes on with plain text. From
    a pipe each line is a question, and stdout has the answers alone.

    Examples:
    - `real chat demo`: the embedded model
    - `real chat ./my-llama ./truth-spec --temperature 0.7`
    - `echo "Can you see the Great Wall from the Moon?" | real chat ./my-llama ./truth-spec`
    """
    use_home(home)
    from flows.terminal.chatting import HELP, added, chatted, described
    from real_tasks.serving.catalogue import Catalogue
    from real_tasks.serving.engine import Engine
    from real_tasks.serving.generations import Sampling
    from real_tasks.serving.talk import Talk

    if strength != 1 and not spec:
        raise UserInputError("--strength without a spec; name the folder of one")
    check_specs(spec or ())
    interactive = sys.stdin.isatty()
    loaded = loaded_model(model, revision, dtype, device)
    catalogue = Catalogue(loaded, model, {})
    sampling = Sampling(max_tokens, temperature, seed=seed)
    with Engine(loaded).running() as engine:
        talk = Talk(engine, catalogue, sampling, system)
        talk.names = added(talk, list(map(str, spec or ())))
        if talk.names:
            talk.set_strength(strength)
            talk.put_as_tuned()
        if not talk.has_template:
            plain = f"the model has no chat template; it goes on with {talk.template!r}"
            err.print(plain, style="dim", highlight=False, markup=False)
        if interactive:
            shown = f"{described(talk)}\n\n{HELP}\n"
            err.print(shown, style="dim", highlight=False, markup=False, soft_wrap=True)
        chatted(talk, interactive)
