"""Head activations: what every attention head writes at the last token of a text.

They are the input of each layer's attention output projection, ``o_proj`` (method of REAL, section
3.1). One call serves one shard of texts, so that memory follows the shard, not the data set.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from real_tasks.batching import N_NAMED, check_lengths, encode, pack, pad
from real_tasks.errors import UserInputError
from real_tasks.models import LoadedModel, output_projections


@contextmanager
def _last_token_inputs(
    projections: Sequence[nn.Module], last: Int[Tensor, "row"]
) -> Iterator[dict[int, Float[Tensor, "row width"]]]:
    kept: dict[int, Float[Tensor, "row width"]] = {}
    rows = torch.arange(len(last), device=last.device)

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            kept[layer] = args[0][rows.to(args[0].device), last.to(args[0].device)]

        return hook

    handles = [p.register_forward_pre_hook(keep(i)) for i, p in enumerate(projections)]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def check_vocabulary(loaded: LoadedModel, texts: Sequence[str]) -> None:
    """Check that the tokenizer knows every word; a tokenizer without an unknown token knows all.

    Raises:
        UserInputError: names the first unknown words and counts the texts that hold one.
    """
    unknown_id = loaded.tokenizer.unk_token_id
    if unknown_id is None or not texts:
        return
    ids = encode(loaded, texts)
    affected = [text for text, row in zip(texts, ids, strict=True) if unknown_id in row]
    if not affected:
        return
    words = dict.fromkeys(word for text in affected for word in _unknown_words(loaded, text))
    shown = ", ".join(repr(word) for word in list(words)[:N_NAMED])
    raise UserInputError(
        f"{len(affected)} of {len(texts)} texts hold words that the tokenizer does not know: "
        f"{shown}; expected texts in the model's own vocabulary (first: {affected[0]!r})"
    )


def _unknown_words(loaded: LoadedModel, text: str) -> list[str]:
    unknown_id = loaded.tokenizer.unk_token_id
    if not loaded.tokenizer.is_fast:
        return [w for w in text.split() if unknown_id in encode(loaded, [w])[0]]
    encoded = loaded.tokenizer(text, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [text[begin:end] for token, (begin, end) in pairs if token == unknown_id]


@torch.no_grad()
def head_activations(
    loaded: LoadedModel, texts: Sequence[str], batch_tokens: int
) -> Float[Tensor, "sample layer head d_head"]:
    """Return the head activations at the last token of each text, float32 on the CPU.

    Texts go through in batches of similar length, filled up on the right and masked. The
    language-model head is skipped, and of a batch only one position a layer is kept.

    Args:
        loaded: the model; no other thread may use the same model object meanwhile.
        texts: one shard.
        batch_tokens: most tokens of a batch, padding included.

    Raises:
        UserInputError: texts without tokens or longer than the model's positions, or activations
            with NaN or infinity (says in which layer and for which texts).
    """
    ids = encode(loaded, texts)
    check_lengths(loaded, [len(row) for row in ids], texts)
    shape = loaded.shape
    values = torch.empty(len(ids), shape.n_layers, shape.n_heads, shape.head_dim)
    for indices in pack([len(row) for row in ids], batch_tokens):
        batch_values = _batch_activations(loaded, [ids[i] for i in indices])
        _check_finite(batch_values, [texts[i] for i in indices])
        values[indices] = rearrange(
            batch_values,
            "sample layer (head d_head) -> sample layer head d_head",
            head=shape.n_heads,
        )
    return values


def _batch_activations(
    loaded: LoadedModel, rows: Sequence[Sequence[int]]
) -> Float[Tensor, "row layer width"]:
    batch = pad(loaded, rows, "right")
    last = batch.mask.sum(1) - 1
    with _last_token_inputs(output_projections(loaded.model), last) as kept:
        loaded.decoder(input_ids=batch.input_ids, attention_mask=batch.mask, use_cache=False)
    layers = [kept[layer].to(loaded.device) for layer in range(loaded.shape.n_layers)]
    return torch.stack(layers, dim=1).float().cpu()


def _check_finite(values: Float[Tensor, "row layer width"], texts: Sequence[str]) -> None:
    bad = ~values.isfinite().all(-1)
    if not bad.any():
        return
    layer = int(bad.any(0).nonzero()[0])
    affected = [texts[i] for i in bad.any(1).nonzero().flatten().tolist()]
    shown = "; ".join(repr(text[:60]) for text in affected[:N_NAMED])
    raise UserInputError(
        f"activations with NaN or infinity, from layer {layer} on, for {len(affected)} of "
        f"{len(texts)} texts of a batch: {shown}; a damaged checkpoint, or float16 where the model "
        "needs bfloat16 or float32"
    )
