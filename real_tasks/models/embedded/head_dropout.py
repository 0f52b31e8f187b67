"""Head dropout: whole attention heads are silenced while a model is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlamaForCausalLM


class HeadDropout:
    """Silences whole heads, per sequence, at the input of o_proj while `active`; a pre-hook."""

    def __init__(self, heads: int, probability: float, generator: torch.Generator) -> None:
        self.active = False
        self._heads = heads
        self._keep = 1 - probability
        self._generator = generator

    def __call__(
        self, _module: nn.Module, inputs: tuple[Float[Tensor, "document position head*d_head"]]
    ) -> tuple[Tensor] | None:
        """Return the input with heads set to zero and the others scaled up; None when inactive."""
        if not self.active:
            return None
        (values,) = inputs
        shape = (len(values), 1, self._heads, 1)
        scale = (torch.rand(shape, generator=self._generator) < self._keep) / self._keep
        per_head = rearrange(
            values, "document position (head d) -> document position head d", head=self._heads
        )
        dropped = per_head * scale
        return (rearrange(dropped, "document position head d -> document position (head d)"),)


@contextmanager
def head_dropout(
    model: LlamaForCausalLM, probability: float, generator: torch.Generator
) -> Iterator[HeadDropout]:
    """Hook head dropout into every layer, inactive at first; the hooks go when the context ends.

    A head is silenced in a sequence with the given probability.
    """
    dropout = HeadDropout(model.config.num_attention_heads, probability, generator)
    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(dropout) for layer in model.model.layers
    ]
    try:
        yield dropout
    finally:
        for handle in handles:
            handle.remove()
