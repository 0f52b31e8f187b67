"""The beginning that all prompts have in common (examples, an instruction), read only once.

Its keys and values are computed once per intervention, in one row, and every batch of what follows
attends to them. They are put before a batch's own layer by layer and never kept with them, so that
the memory for the copies is that of one layer, and one cache serves any number of batches.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from real_tasks.models.loading import LoadedModel
from real_tasks.reading.out_of_memory import halving
from real_tasks.reading.shared_rows import common_length, may_share
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied

MIN_PREFIX = 32
"""Tokens from which a common beginning is worth a forward pass of its own."""
CACHED_TOKENS_PER_TOKEN = 4
"""How many cached tokens take about as much memory as one token that is computed."""


class _PrefixLayer(DynamicLayer):
    """Keys and values of one layer, ``[1, head, prefix, d_head]``, that no forward pass changes."""

    @classmethod
    def holding(
        cls,
        keys: Float[Tensor, "one head prefix d_head"],
        values: Float[Tensor, "one head prefix d_head"],
    ) -> "_PrefixLayer":
        """Make a layer of what a forward pass over the prefix has left."""
        layer = cls()
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        return layer

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the prefix's and the given states of every row, and keep none of the latter."""
        assert self.keys is not None and self.values is not None
        n_rows = len(key_states)
        keys = torch.cat([self.keys.expand(n_rows, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(n_rows, -1, -1, -1), value_states], dim=-2)
        return keys, values


def common_prefix(loaded: LoadedModel, contexts: Sequence[Sequence[int]], longest: int) -> int:
    """Return how many tokens at the beginning of all contexts are to be read only once.

    At least one token of each context is left, as the first token of an answer is predicted there.

    Args:
        loaded: the model; one whose attention window would cut has no prefix, as one mask serves
            all layers.
        contexts: tokens of the prompts, one for each row.
        longest: tokens of the longest text, prompt and answer together.

    Returns:
        0 where it would save too little: less than `MIN_PREFIX` tokens, or a single context.
    """
    if len(contexts) < 2 or not may_share(loaded, longest):
        return 0
    shared = min(common_length(contexts[0], context) for context in contexts)
    shared = min(shared, min(map(len, contexts)) - 1)
    return shared if shared >= MIN_PREFIX else 0


@torch.inference_mode()
def read_prefix(
    loaded: LoadedModel, prefix: Sequence[int], intervention: Intervention | None
) -> Cache | None:
    """Read a prefix under an intervention and return its keys and values, None without a prefix.

    The prefix is part of every prompt, and never its end: only token scope ``all`` steers it.

    Raises:
        UserInputError: the prefix does not fit the device's memory.
    """
    if not prefix:
        return None
    # The list's type is that of `Cache`, which holds layers of several kinds.
    layers: list[Any] = []

    def run(_rows: list[int]) -> None:
        ids = torch.tensor([list(prefix)], device=loaded.device)
        cache = DynamicCache()
        # What follows belongs to the prompt too, at least one token of it.
        beyond = torch.tensor([len(prefix) + 1], device=loaded.device)
        with applied(loaded, intervention, beyond):
            loaded.hidden_states(input_ids=ids, past_key_values=cache, use_cache=True)
        read: list[Any] = cache.layers
        layers[:] = [_PrefixLayer.holding(layer.keys, layer.values) for layer in read]

    halving(loaded, "prefix", [len(prefix)], run)
    return Cache(layers=layers)


def growing_cache(loaded: LoadedModel, prefix: Cache | None, n_rows: int) -> DynamicCache:
    """Return a cache of ``n_rows`` rows that start with a prefix; what is read later is kept."""
    if prefix is None:
        return DynamicCache(config=loaded.model.config)
    cache = DynamicCache()
    read: list[Any] = prefix.layers
    for index, layer in enumerate(read):
        rows = [states.expand(n_rows, -1, -1, -1) for states in (layer.keys, layer.values)]
        cache.update(rows[0], rows[1], index)
    return cache


def after_prefix(inputs: dict[str, Any], prefix: Cache | None) -> dict[str, Any]:
    """Return a decoder's arguments for rows after a prefix, from those for the rows alone.

    With a prefix (see `read_prefix`) their mask is an additive one, ``[row, 1, sees, seen]``.
    """
    if prefix is None:
        return inputs
    n_prefix = prefix.get_seq_length()
    # Zero is added to the scores: all positions may look at all of the prefix.
    mask = torch.nn.functional.pad(inputs["attention_mask"], (n_prefix, 0))
    return {
        **inputs,
        "attention_mask": mask,
        "position_ids": inputs["position_ids"] + n_prefix,
        "past_key_values": prefix,
        "use_cache": True,
    }
