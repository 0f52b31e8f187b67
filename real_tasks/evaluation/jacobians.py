"""Jacobians of decoder layers at a text's last token."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import places


def mean_jacobians(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], batch_tokens: int
) -> Float[Tensor, "layer d d"]:
    """Return every layer's Jacobian of its output by its input, ``[layer, out, in]``.

    It is that at the last token, the earlier ones held as they are; these are read once. Mean over
    the texts, of which ``rows`` are the tokens, float32 on the CPU. A text takes a pass over its
    last token, with a row and a gradient for each dimension; every row of a batch holds keys and
    values of the whole text.
    """
    n_layers, d = loaded.shape.n_layers, loaded.shape.d_model
    found = torch.zeros(n_layers, d, d)
    for row in rows:
        ids = torch.tensor([row], device=loaded.device)
        kept = DynamicCache(config=loaded.model.config.get_text_config())
        if len(row) > 1:
            with torch.no_grad():
                loaded.hidden_states(input_ids=ids[:, :-1], past_key_values=kept, use_cache=True)
        for outputs in torch.arange(d).split(max(1, batch_tokens // len(row))):
            _add(loaded, ids[:, -1:], kept, outputs, found)
    return found / len(rows)


def _add(
    loaded: LoadedModel,
    last: Int[Tensor, "one one"],
    kept: DynamicCache,
    outputs: Int[Tensor, "out"],
    found: Float[Tensor, "layer d d"],
) -> None:
    """Add the derivatives of some of the outputs: each row's is that of one of them."""
    cache = copy.deepcopy(kept)
    cache.batch_repeat_interleave(len(outputs))
    inputs: list[Tensor] = []

    def cut(values: Tensor) -> Tensor:
        inputs.append(values.detach().requires_grad_())
        return inputs[-1]

    def differentiate(layer: int, values: Tensor) -> Tensor:
        place = outputs.to(values.device)
        own = values[torch.arange(len(place), device=place.device), -1, place]
        (rows,) = torch.autograd.grad(own.sum(), inputs[-1])
        found[layer, outputs] += rows[:, -1].float().cpu()
        return values.detach()

    with ExitStack() as hooks, torch.enable_grad():
        for place in places(loaded.model, "residual_in"):
            hooks.callback(place.hook(cut).remove)
        for layer, place in enumerate(places(loaded.model, "layer")):
            hooks.callback(place.hook(partial(differentiate, layer)).remove)
        loaded.hidden_states(
            input_ids=last.expand(len(outputs), -1), past_key_values=cache, use_cache=True
        )
