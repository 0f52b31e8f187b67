"""Tokens a second of the server on loopback, against plain `generate` one prompt after another.

Every text has the same number of new tokens. Steered, every head of every layer is displaced. The
server runs in a thread of the process that asks, so that the clients' work counts against it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import torch

from real_tasks.models.loading import LoadedModel
from real_tasks.serving.catalogue import Catalogue
from real_tasks.serving.engine import Engine
from real_tasks.serving.http.app import served
from real_tasks.serving.http.guard import Metrics
from tests.benchmarks.common import Options, Row, seconds, small_llama
from tests.unit.serving.http_server import listening
from tests.unit.tiny_models import pushing

CLIENTS = (1, 8, 32)
N_PROMPT, N_NEW = 24, 32
FEWEST = 4
"""Prompts of a setting: as many as clients, but not fewer."""


def rows(options: Options) -> Iterator[Row]:
    loaded = small_llama(options.device, *options.sized((512, 8), (64, 2)))
    loaded.tokenizer.eos_token = loaded.model.generation_config.eos_token_id = None
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(4, loaded.n_tokens, (max(CLIENTS), N_PROMPT), generator=draw).tolist()
    alone, n_new = loaded.private_copy(), options.sized(N_NEW, 4)
    counts = [max(n, FEWEST) * n_new for n in (1, *CLIENTS, *CLIENTS)]
    with TemporaryDirectory() as folder, running(loaded, every_head(loaded, Path(folder))) as url:
        tasks: list[Callable[[], None]] = [partial(one_by_one, alone, prompts[:FEWEST], n_new)]
        for model in ("bench", "bench:heads"):
            for n in CLIENTS:
                asked = prompts[: max(n, FEWEST)]
                tasks.append(partial(ask, url, model, asked, n_new, n))
        taken = seconds(options.rounds, *tasks)
    base, *speeds = (n / one for n, one in zip(counts, taken, strict=True))
    bare, steered = speeds[: len(CLIENTS)], speeds[len(CLIENTS) :]
    for n, speed in zip(CLIENTS, bare, strict=True):
        baseline = "`generate`, one prompt after another"
        what = f"serving, {n} clients, tokens/s"
        yield Row(what, speed, base, baseline, rate=True, short=n == max(CLIENTS))
    for n, speed, other in zip(CLIENTS, steered, bare, strict=True):
        yield Row(f"serving, {n} clients, all heads steered, tokens/s", speed, other, "bare", True)


def every_head(loaded: LoadedModel, folder: Path) -> Path:
    """A spec that displaces all heads a little."""
    modules = loaded.shape.modules("head")
    drawn = torch.randn(len(modules), loaded.shape.head_dim)
    pushing(loaded, modules, torch.nn.functional.normalize(drawn, dim=-1), 0.01).save(folder)
    return folder


@contextmanager
def running(loaded: LoadedModel, folder: Path) -> Iterator[str]:
    """Serve the model, and yield the URL of completions."""
    catalogue, metrics = Catalogue(loaded, "bench", {"heads": folder}), Metrics()
    with (
        Engine(loaded, max(CLIENTS)).running() as engine,
        listening(served(engine, catalogue, metrics)) as url,
    ):
        yield f"{url}/completions"


def ask(url: str, model: str, prompts: list[list[int]], n_new: int, n_clients: int) -> None:
    """Send all prompts, so many at a time."""

    async def all_of_them() -> None:
        free = asyncio.Semaphore(n_clients)
        async with httpx.AsyncClient(timeout=600) as client:

            async def one(prompt: list[int]) -> None:
                asked = {"model": model, "prompt": prompt, "max_tokens": n_new, "temperature": 0}
                async with free:
                    reply = await client.post(url, json=asked)
                assert reply.json()["usage"]["completion_tokens"] == n_new

            await asyncio.gather(*map(one, prompts))

    asyncio.run(all_of_them())


def one_by_one(loaded: LoadedModel, prompts: list[list[int]], n_new: int) -> None:
    """Generate by transformers alone."""
    for prompt in prompts:
        ids = torch.tensor([prompt], device=loaded.device)
        with torch.inference_mode():
            loaded.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=n_new,
                do_sample=False,
                pad_token_id=0,
            )
