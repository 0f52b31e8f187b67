"""Commands about the methods that there are: what each is made of, and how to change one."""

from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from flows.terminal.app import ConfigArgument, SetOption, app
from flows.terminal.console import out
from real_tasks.vocabulary.errors import UserInputError

methods_app = typer.Typer(
    name="methods", invoke_without_command=True, rich_markup_mode="markdown", add_completion=False
)
app.add_typer(methods_app)


@methods_app.callback()
def methods(context: typer.Context) -> None:
    """List the ways of steering: what ranks, what fits, what is done, when; and the sources.

    Examples:
    - `real methods`: all of them
    - `real methods show cast`: one as YAML, to change under `methods:` of a configuration
    - `real run --set 'methods=[unsteered, real, cast]'`: to compare some
    """
    if context.invoked_subcommand is not None:
        return
    from real_tasks.experiment.methods.known import summaries
    from real_tasks.experiment.yaml_files import load_config
    from real_tasks.export.targets import exported_as

    for name, lines in summaries(load_config(None, []), exported_as).items():
        out.print(name, style="bold", highlight=False)
        for line in lines:
            out.print(Padding(Text(line), (0, 0, 0, 4)))
    out.print("`real methods show NAME` prints one as YAML, to change.", style="dim")


@methods_app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a method; `real methods` lists them.")],
    config: ConfigArgument = None,
    assignments: SetOption = None,
) -> None:
    """Print a method as YAML that can stand under `methods:`, with another name."""
    from real_tasks.experiment.methods.known import as_yaml, said_methods
    from real_tasks.experiment.yaml_files import load_config

    known = said_methods(load_config(config, assignments or []))
    if name not in known:
        raise UserInputError(f"unknown method {name!r}; there are: {', '.join(sorted(known))}")
    out.print(as_yaml(known[name]), markup=False, highlight=False, soft_wrap=True, end="")
