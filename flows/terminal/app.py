"""The command line's application, and the options that commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from storage.paths import STORE_VARIABLE, full_url

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Find the attention heads that carry a behaviour, and steer a model through them.

Start with `real run`: it trains a tiny embedded model, finds the heads that carry truthfulness,
steers through them, and leaves a report, tables to query and an MLflow record, all offline.

With a model and questions of your own: `real data check FILE`, `real config > my.yaml`,
`real run my.yaml`, `real report`, `real export`.
""",
)


def _home(text: str) -> Path:
    if not text.strip():
        raise typer.BadParameter("it is empty; expected a folder ('.' is the current one)")
    return Path(text)


HomeOption = Annotated[
    Path | None,
    typer.Option(
        parser=_home,
        metavar="PATH",
        envvar="REAL_HOME",
        help="Folder of everything that runs make; deleting it resets everything. Default: ./.real",
        show_default=False,
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Hugging Face id, folder of a checkpoint, GGUF file, or a name: demo, smollm2."
    ),
]
ConfigArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="YAML files, laid one over the other; `real config` prints one. Without: the demo.",
        metavar="[CONFIG]...",
        show_default=False,
    ),
]
RunArgument = Annotated[
    str | None, typer.Argument(help="The run; the last completed one by default.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        envvar="REAL_STORE",
        help="Store that machines share, behind the home: s3://bucket/prefix, gs://bucket/prefix, "
        "az://container/prefix, or a folder that all of them see. Stands before the command.",
        show_default=False,
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


@app.callback()
def use_store(store: StoreOption = None) -> None:
    """Make ``store`` the store of this process and its children."""
    if store is not None and not store.strip():
        raise typer.BadParameter("--store is empty; expected an address or a folder")
    url = full_url(store)
    if url is not None:
        from storage.shared.objects import check_store

        check_store(url)
        os.environ[STORE_VARIABLE] = url
