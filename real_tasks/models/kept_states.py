"""What the unsteered model has at the inputs of its layers, kept from one reading to the next.

Below the first layer that an intervention touches, a steered model is the unsteered one. A pass
over a batch that was read before can start there, and the unsteered model itself is read once.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from real_tasks.models.replacing import replaced

KEPT_BYTES = 2**30
"""Main memory for the states of one model, whatever its copies: of 30,000 tokens of a model with 7
billion parameters a layer's take a quarter of it."""


class KeptStates:
    """The residual stream of batches at layers' inputs, in the main memory; for any thread.

    What was used least recently makes room; what is not there is computed again by whoever asks.
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        """Keep up to ``limit`` bytes."""
        self._limit = limit
        self._states: OrderedDict[tuple[str, int], Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self.n_bytes = 0

    def nearest(
        self, batch: str, layer: int
    ) -> tuple[int, Float[Tensor, "row position d_model"] | None]:
        """Return the last layer up to ``layer`` whose input is kept, and that; else 0 and None."""
        with self._lock:
            for at in range(layer, 0, -1):
                if (batch, at) in self._states:
                    self._states.move_to_end((batch, at))
                    return at, self._states[batch, at]
        return 0, None

    def keep(self, batch: str, layer: int, states: Float[Tensor, "row position d_model"]) -> None:
        """Keep the input of a layer, or what comes out of the last one, where there is room."""
        n_bytes = states.numel() * states.element_size()
        if n_bytes > self._limit:
            return
        with self._lock:
            if (batch, layer) in self._states:
                return
            while self.n_bytes + n_bytes > self._limit:
                _, gone = self._states.popitem(last=False)
                self.n_bytes -= gone.numel() * gone.element_size()
            self._states[batch, layer] = states.to("cpu", copy=True)
            self.n_bytes += n_bytes


def batch_key(*parts: Any) -> str:
    """Return what tells a batch from others of a model, of all that its states depend on."""
    return sha256(repr(parts).encode()).hexdigest()


@contextmanager
def resumed(kept: KeptStates, layers: list[nn.Module], batch: str, first: int) -> Iterator[None]:
    """Start a forward pass of the decoder within the context as late as is known.

    The layers before are not run: the last of them puts out what it is known to. So embeddings,
    masks, rotary embeddings and all that goes by a layer's number stay the model's own, and the
    layers that run do what they do in a full pass.

    Args:
        kept: the states; gets those at ``first`` where they are not there.
        layers: the decoder's, first first.
        batch: see `batch_key`.
        first: the first layer that may differ from the unsteered model's; the number of layers if
            none does.
    """
    at, states = kept.nearest(batch, first)
    with ExitStack() as undo:
        for layer in layers[:at]:
            undo.enter_context(replaced(layer, "forward", _putting_out(layer, states)))
        if at < first:

            def keep(_module: nn.Module, _args: Any, output: Any) -> None:
                # Of a layer that puts out more nothing is known.
                if isinstance(output, Tensor):
                    kept.keep(batch, first, output)

            undo.callback(layers[first - 1].register_forward_hook(keep).remove)
        yield


def _putting_out(layer: nn.Module, states: Tensor | None) -> Callable[..., Tensor]:
    """Return what puts out given states, on a layer's device, whatever the layer is to read."""
    assert states is not None
    placed = states.to(next(layer.parameters()).device)
    return lambda *_args, **_kwargs: placed
