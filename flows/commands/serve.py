"""The command that serves a model over HTTP, steered as each request asks."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal.app import HomeOption, ModelArgument, app
from flows.terminal.console import out, show_paths
from flows.terminal.environment import is_loopback, use_home
from real_tasks.vocabulary.errors import UserInputError

if TYPE_CHECKING:
    from real_tasks.models.loading import LoadedModel
    from real_tasks.serving.catalogue import Catalogue

KEY_VARIABLE = "REAL_API_KEY"
PORT = 8000
_SECONDS_TO_END = 5


class Dtype(StrEnum):
    """Types of weights in memory."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


RevisionOption = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a Hugging Face id.")
]
DtypeOption = Annotated[Dtype, typer.Option(help="Type of the weights in memory.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


@app.command()
def serve(
    model: ModelArgument,
    spec: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="A steering spec; may be given several times."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach only with a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.")] = PORT,
    api_key: Annotated[
        str | None,
        typer.Option(envvar=KEY_VARIABLE, help="Key that clients must send.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model for clients; the folder's by default.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=4096, help="Texts at once in a batch.")] = 32,
    queue: Annotated[
        int, typer.Option(min=1, max=100_000, help="Texts that may wait; more are told 429.")
    ] = 256,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    home: HomeOption = None,
) -> None:
    """Serve a model with OpenAI's protocol, steered as each request asks.

    Clients choose by the model's name (`MODEL`, bare, or `MODEL:NAME`, with a spec) or by a field
    `steering`, a list of specs each with a strength: 1 is as tuned, 0 nothing. Requests that are
    steered differently share one batch, and get what they would get alone. Addresses:
    `/v1/chat/completions`, `/v1/completions` (both with streaming, logprobs, stop, seed, n),
    `/v1/models`, `/health`, `/metrics` (Prometheus). A spec is loaded once: one that changes on
    disk is served as it was, which `/v1/models` and the log say.

    Examples:
    - `real serve ./my-llama --spec truth=./truth-spec`
    - `real serve org/name --spec truth=a --spec polite=b --dtype bfloat16 --port 0`
    - `real serve demo --host 0.0.0.0 --api-key SECRET`: for other machines, with a key
    """
    use_home(home)
    key = checked_key(host, api_key)
    folders = named_folders(spec or [])
    check_specs(folders.values())
    from flows.stack.options import in_url, listener

    with listener(host, port, "--port") as socket:
        import uvicorn

        from real_tasks.serving.catalogue import Catalogue
        from real_tasks.serving.engine import Engine
        from real_tasks.serving.http.app import served
        from real_tasks.serving.http.guard import Metrics

        _take_all_files()
        loaded = loaded_model(model, revision, dtype, device)
        catalogue = Catalogue(loaded, name or _name_of(model), folders)
        metrics = Metrics()
        with Engine(loaded, rows, queue, metrics.step).running() as engine:
            application = served(engine, catalogue, metrics, key)
            bound = int(socket.getsockname()[1])
            _show(catalogue, f"http://{in_url(host)}:{bound}/v1", engine.max_rows, key, loaded)
            server = uvicorn.Server(
                uvicorn.Config(
                    application, log_level="warning", timeout_graceful_shutdown=_SECONDS_TO_END
                )
            )
            try:
                server.run(sockets=[socket])
            except KeyboardInterrupt:
                out.print("stopped")


def checked_key(host: str, key: str | None) -> str | None:
    """Return the key that clients must send.

    Raises:
        UserInputError: others could use the model without one, or it cannot be sent.
    """
    if key is None:
        if not is_loopback(host):
            raise UserInputError(
                f"--host {host} lets other machines use the model, which is allowed only with a "
                f"key: give --api-key KEY or set {KEY_VARIABLE}; or leave out --host, and reach "
                "127.0.0.1 through a tunnel (ssh -L)"
            )
        return None
    if not key.isascii() or not key.isprintable() or not key.split() or " " in key:
        raise UserInputError(
            "the key is empty or holds blanks or characters that headers do not carry; expected "
            "printable ASCII without blanks"
        )
    return key


def named_folders(given: list[str]) -> dict[str, Path]:
    """Return the folders of ``NAME=FOLDER`` by name.

    Raises:
        UserInputError: another form, a name twice, or no folder.
    """
    found: dict[str, Path] = {}
    for one in given:
        name, equals, folder = one.partition("=")
        if not equals or not name.strip() or not folder.strip():
            raise UserInputError(f"--spec {one!r}: expected NAME=FOLDER, as truth=./truth-spec")
        if name in found:
            raise UserInputError(f"--spec: the name {name!r} is given twice; choose another one")
        found[name] = Path(folder)
    return found


def check_specs(folders: Iterable[Path]) -> None:
    """Read specs, so that what is wrong with one is told before a model is loaded.

    Raises:
        UserInputError: a folder holds none, or a damaged one.
    """
    from real_tasks.steering.spec import SteeringSpec

    for folder in folders:
        SteeringSpec.load(folder)


def loaded_model(path: str, revision: str | None, dtype: Dtype, device: str) -> "LoadedModel":
    """Return a model by folder, Hugging Face id, GGUF file or name; what is to be made is kept."""
    from flows.terminal.console import progress_shown
    from real_tasks.tasks.model_here import model_here
    from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig

    options = ModelConfig(path=path, revision=revision, dtype=dtype.value)
    with progress_shown():
        return model_here(options, ExecutionConfig(device=device))


def _name_of(path: str) -> str:
    return Path(path).resolve().name if Path(path).is_dir() else path


def _take_all_files() -> None:
    """Allow as many open connections as the system lets a process have."""
    try:
        import resource
    except ImportError:  # not there on Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _show(
    catalogue: "Catalogue", url: str, rows: int, key: str | None, loaded: "LoadedModel"
) -> None:
    """Print where the server listens, what it offers, and how to ask it."""
    shown = {"listening on": url, "bare model": catalogue.name}
    for model, spec in catalogue.models.items():
        if spec is not None:
            shown[model] = catalogue.specs[spec].spec.explain().replace("\n", "; ")
    at_once = f"{rows} texts in a batch" if rows > 1 else "one text at a time"
    shown["at once"] = at_once
    show_paths(shown)
    model = list(catalogue.models)[-1]
    chat = bool(loaded.tokenizer.chat_template)
    address = "chat/completions" if chat else "completions"
    hello = {"messages": [{"role": "user", "content": "Hello!"}]} if chat else {"prompt": "Hello"}
    said = {**hello, "max_tokens": 64}
    content = json.dumps({"model": model, **said})
    header = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if key else ""
    sent = f"{key and f'os.environ[{KEY_VARIABLE!r}]' or repr('none')}"
    lines = [
        f"\ncurl {url}/{address} -H 'Content-Type: application/json'{header} -d '{content}'\n",
        *(["import os", ""] if key else []),
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{url}", api_key={sent})',
        f"client.{address.replace('/', '.')}.create(",
        f"    model={model!r}, " + ", ".join(f"{k}={v!r}" for k, v in said.items()) + ",",
        *_steering_line(catalogue),
        ")",
        f"\nCtrl-C stops it (process {os.getpid()}).",
    ]
    for line in lines:
        typer.echo(line)


def _steering_line(catalogue: "Catalogue") -> list[str]:
    if not catalogue.specs:
        return []
    return ["    # or with the bare model's name, and specs at strengths of your own:"] + [
        f'    # extra_body={{"steering": [{{"spec": "{next(iter(catalogue.specs))}", '
        '"strength": 1.5}]},'
    ]
