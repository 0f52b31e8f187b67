"""The next token of each row of a batch: the likeliest, or drawn by the row's own generator."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.serving.generations import Sampling, Score

_COLDEST = 1e-5
"""Temperatures below it are 0: what they draw is the likeliest token."""

_LOWEST = -9999.0
"""What stands for minus infinity, which JSON does not have."""


def is_greedy(sampling: Sampling) -> bool:
    """Say whether the likeliest token is taken."""
    return sampling.temperature < _COLDEST


def draw(logits: Float[Tensor, "vocab"], sampling: Sampling, generator: torch.Generator) -> int:
    """Return a token, drawn with one number of the generator whatever the vocabulary."""
    scaled = (logits.double().cpu() - logits.max().double().cpu()) / sampling.temperature
    probs, order = scaled.softmax(-1), None
    if sampling.top_p < 1:
        probs, order = probs.sort(descending=True, stable=True)
        before = probs.cumsum(-1) - probs
        probs = probs * (before < sampling.top_p)
    below = probs.cumsum(-1)
    number = torch.rand(1, generator=generator, dtype=torch.float64) * below[-1]
    place = min(int(torch.searchsorted(below, number, right=True)), len(below) - 1)
    return place if order is None else int(order[place])


def score(
    logits: Float[Tensor, "vocab"], token: int, n: int, bytes_of: Callable[[int], bytes]
) -> Score:
    """Return the log-probability of a token, and those of the ``n`` likeliest."""
    log_probs = logits.float().log_softmax(-1).clamp_min(_LOWEST)
    best = log_probs.topk(min(n, len(log_probs)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    likeliest = tuple((bytes_of(one), value) for one, value in pairs)
    return Score(bytes_of(token), float(log_probs[token]), likeliest)
