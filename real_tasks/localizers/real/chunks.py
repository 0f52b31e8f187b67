"""Runs a shard in chunks: small enough for the processor's cache, side by side in threads."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 8 << 30}
"""Memory that a step sweeps: on a CPU a share of the last-level cache, else of the whole memory."""


def chunks_of_modules(n_modules: int, bytes_per_module: int, device: torch.device) -> list[range]:
    """Cut the modules into chunks of nearly equal size, at least one for every thread."""
    largest = max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // bytes_per_module)
    n_chunks = -(-n_modules // largest)
    threads = min(_threads(device), n_modules)
    n_chunks = -(-n_chunks // threads) * threads
    bounds = [n_modules * i // n_chunks for i in range(n_chunks + 1)]
    return [range(low, high) for low, high in zip(bounds, bounds[1:], strict=False) if low < high]


def map_chunks(run: Callable[[range], T], chunks: Sequence[range], device: torch.device) -> list[T]:
    """Return ``run`` of every chunk, in order.

    On a CPU the chunks share out the threads that torch may use. One thread a chunk beats several
    threads an operation, since most operations here are too short to be divided.
    """
    threads = min(_threads(device), len(chunks))
    if threads == 1:
        return [run(chunk) for chunk in chunks]
    with _one_thread_an_operation(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, chunks))


def _threads(device: torch.device) -> int:
    return torch.get_num_threads() if device.type == "cpu" else 1


_lock = threading.Lock()
_nested: list[int] = []


@contextmanager
def _one_thread_an_operation() -> Iterator[None]:
    """Set torch's thread count to 1 for threads started meanwhile.

    The count belongs to the process, so of several overlapping users the last one restores it.
    """
    with _lock:
        _nested.append(torch.get_num_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            before = max(_nested)
            _nested.pop()
            if not _nested:
                torch.set_num_threads(before)
