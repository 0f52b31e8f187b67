"""Which layers of a model run, seen without hooks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import sites


@contextmanager
def counted(loaded: LoadedModel) -> Iterator[list[int]]:
    """Yield the numbers of the layers that run within the context, in order."""
    ran: list[int] = []
    layers = sites(loaded.model, "layer")

    def counting(number: int, forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            ran.append(number)
            return forward(*args, **kwargs)

        return run

    for number, layer in enumerate(layers):
        vars(layer)["forward"] = counting(number, layer.forward)
    try:
        yield ran
    finally:
        for layer in layers:
            del vars(layer)["forward"]
