"""A tiny model behind uvicorn in a thread of this process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from openai import OpenAI

from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.serving.catalogue import Catalogue
from real_tasks.serving.engine import Engine
from real_tasks.serving.http.app import served
from real_tasks.serving.http.guard import Metrics
from real_tasks.vocabulary.types import ModuleId
from tests.unit.serving.served import unit
from tests.unit.tiny_models import pushing, tiny_llama, tiny_tokenizer

KEY = "a-key"
NO_ENDS = "{% for m in messages %}{{ m['role'][0] }} {{ m['content'] }} {% endfor %}A:"


@dataclass
class Server:
    """Attributes: url: of the protocol, with ``/v1``; loaded: the very model that is served."""

    url: str
    loaded: LoadedModel
    engine: Engine
    catalogue: Catalogue
    folders: dict[str, Path]

    def client(self, key: str = KEY) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0)


def planted(loaded: LoadedModel, folder: Path, seed: int, layer: int) -> Path:
    """A spec that pushes the output of a layer along a drawn direction."""
    along = unit(loaded.shape.d_model, seed)
    pushing(loaded, (ModuleId("layer", layer),), along, 5.0).save(folder)
    return folder


@contextmanager
def listening(application: Any) -> Iterator[str]:
    """An application behind uvicorn in a thread of this process; yields the URL of its API."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def running(
    folder: Path, max_rows: int = 8, max_waiting: int = 64, loaded: LoadedModel | None = None
) -> Iterator[Server]:
    loaded = loaded or prepare(tiny_llama(), tiny_tokenizer())
    loaded.tokenizer.chat_template = NO_ENDS
    specs = {"truth": (1, 0), "calm": (2, 2)}
    folders = {name: planted(loaded, folder / name, *how) for name, how in specs.items()}
    catalogue, metrics = Catalogue(loaded, "tiny", folders), Metrics()
    with (
        Engine(loaded, max_rows, max_waiting, metrics.step).running() as engine,
        listening(served(engine, catalogue, metrics, KEY)) as url,
    ):
        yield Server(url, loaded, engine, catalogue, folders)
