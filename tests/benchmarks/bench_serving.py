"""Tokens a second of the server on loopback, against plain `generate` one prompt after another.

    python -m tests.benchmarks.bench_serving [--model FOLDER]

Every text has the same number of new tokens. Steered, every head of every layer is displaced. The
server runs in a thread of the process that asks, so that the clients' work counts against it.
Figures are medians of several rounds, in which all settings take turns.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import torch
from rich.console import Console
from rich.table import Table

from real_tasks.models.loading import LoadedModel, load_model
from real_tasks.serving.catalogue import Catalogue
from real_tasks.serving.engine import Engine
from real_tasks.serving.http.app import served
from real_tasks.serving.http.guard import Metrics
from tests.benchmarks.bench_prefix import small_llama
from tests.unit.serving.http_server import listening
from tests.unit.tiny_models import pushing

CLIENTS = (1, 8, 32)
N_PROMPT = 24


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of a checkpoint; without: a small random Llama")
    parser.add_argument("--width", type=int, default=512, help="of the random one")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    loaded = load_model(options.model) if options.model else small_llama("cpu", options.width, 8)
    loaded.tokenizer.eos_token = loaded.model.generation_config.eos_token_id = None
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(4, loaded.n_tokens, (max(CLIENTS), N_PROMPT), generator=draw).tolist()
    alone, n_new = loaded.private_copy(), options.new_tokens
    with TemporaryDirectory() as folder, running(loaded, every_head(loaded, Path(folder))) as url:
        settings: dict[tuple[str, int], Callable[[], None]] = {
            ("generate", 1): lambda: one_by_one(alone, prompts[:4], n_new)
        }
        for model in ("bench", "bench:heads"):
            for n in CLIENTS:
                asked = prompts[: max(n, 4)]
                settings[model, n] = lambda m=model, n=n, p=asked: ask(url, m, p, n_new, n)
        found: dict[tuple[str, int], list[float]] = {one: [] for one in settings}
        for _ in range(options.rounds):
            for setting, run in settings.items():
                began = time.perf_counter()
                run()
                n_texts = 4 if setting[1] == 1 else setting[1]
                found[setting].append(n_texts * n_new / (time.perf_counter() - began))
    speed = {setting: statistics.median(rounds) for setting, rounds in found.items()}
    base = speed["generate", 1]
    table = Table("clients", "bare, tokens/s", "of generate's", "steered, tokens/s", "of the bare")
    for n in CLIENTS:
        bare, steered = speed["bench", n], speed["bench:heads", n]
        row = (f"{bare:.0f}", f"{bare / base:.2f}", f"{steered:.0f}", f"{steered / bare:.2f}")
        table.add_row(str(n), *row)
    console = Console()
    console.print(f"generate, one prompt after another: {base:.0f} tokens/s", table, sep="\n")


if __name__ == "__main__":
    main()
