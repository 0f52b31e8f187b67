"""Log-probabilities of next tokens, read only at the positions that are asked for."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.models.loading import LoadedModel

CHUNK_BYTES = 2**28
"""Largest float32 block of logits held at a time."""


def chunks_of(loaded: LoadedModel, n_tokens: int) -> Iterator[slice]:
    """Cut positions into runs whose logits over the vocabulary fit `CHUNK_BYTES`."""
    n_vocab = loaded.lm_head.get_parameter("weight").shape[0]
    step = max(1, CHUNK_BYTES // (4 * n_vocab))
    yield from (slice(start, start + step) for start in range(0, n_tokens, step))


def next_token_log_probs(
    loaded: LoadedModel, hidden: Float[Tensor, "token d_model"]
) -> Float[Tensor, "token vocab"]:
    """Return the log-probabilities of the token that follows each position, float32."""
    return torch.log_softmax(loaded.logits(hidden).float(), dim=-1)


def target_log_probs(
    loaded: LoadedModel, hidden: Float[Tensor, "token d_model"], targets: Int[Tensor, "token"]
) -> Float[Tensor, "token"]:
    """Return the log-probability of one given next token at each position, float32."""
    parts = []
    for chunk in chunks_of(loaded, len(targets)):
        logits = loaded.logits(hidden[chunk]).float()
        loss = torch.nn.functional.cross_entropy(logits, targets[chunk], reduction="none")
        parts.append(-loss)
    return torch.cat(parts)
