"""Log-probabilities of next tokens, read only at the positions that are asked for."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.models.loading import LoadedModel

CHUNK_BYTES = 2**26
"""Largest float32 block of logits held at a time."""


def chunks_of(loaded: LoadedModel, n_tokens: int) -> Iterator[slice]:
    """Cut positions into runs whose logits over the vocabulary fit `CHUNK_BYTES`."""
    n_vocab = loaded.lm_head.get_parameter("weight").shape[0]
    step = max(1, CHUNK_BYTES // (4 * n_vocab))
    yield from (slice(start, start + step) for start in range(0, n_tokens, step))


def next_token_log_probs(
    loaded: LoadedModel, hidden: Float[Tensor, "position d_model"]
) -> Float[Tensor, "position vocab"]:
    """Return the log-probabilities of the token that follows each position, float32."""
    return torch.log_softmax(loaded.logits(hidden).float(), dim=-1)


def target_log_probs(
    loaded: LoadedModel,
    hidden: Float[Tensor, "position d_model"],
    targets: Int[Tensor, "token"],
    at: Int[Tensor, "token"] | None = None,
) -> Float[Tensor, "token"]:
    """Return the log-probabilities of given next tokens, float32.

    ``at`` is of each the position of ``hidden`` that predicts it; None: one each, in order.
    """
    at = torch.arange(len(targets), device=targets.device) if at is None else at
    found = hidden.new_empty(len(targets), dtype=torch.float32)
    for chunk in chunks_of(loaded, len(hidden)):
        own = (at >= chunk.start) & (at < chunk.stop)
        log_probs = next_token_log_probs(loaded, hidden[chunk])
        found[own] = log_probs[at[own] - chunk.start, targets[own]]
    return found
