"""How long a generated token takes, steered and bare."""

import time
from collections.abc import Sequence
from itertools import pairwise

import torch

from real_tasks.evaluation.answers.greedy import steps
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.batches import pad
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied

PROMPT_TOKENS = 32
TOKENS = 8
"""Tokens that are generated at a time."""
REPEATS = 3
"""Times of each, in turn: the fastest token counts, as other work only slows one down."""


def token_seconds(
    loaded: LoadedModel, prompt: Sequence[int], intervention: Intervention
) -> tuple[float, float]:
    """Return the seconds that a token of one text takes once its prompt is read, steered and bare.

    Of the prompt's tokens the first few are taken.
    """
    room = (loaded.max_positions or 2 * PROMPT_TOKENS) - TOKENS - 1
    start = prompt[: max(1, min(PROMPT_TOKENS, room))]
    found = [[_seconds(loaded, start, how) for how in (intervention, None)] for _ in range(REPEATS)]
    steered, bare = (min(times) for times in zip(*found, strict=True))
    return steered, bare


@torch.inference_mode()
def _seconds(loaded: LoadedModel, start: Sequence[int], how: Intervention | None) -> float:
    batch = pad(loaded, [list(start)], "left")
    ends = torch.full((1,), len(start), device=loaded.device)
    with applied(loaded, how, ends):
        tokens = steps(loaded, batch, None, TOKENS + 1, [])
        next(tokens)
        moments = [time.perf_counter(), *(time.perf_counter() for _ in tokens)]
    return min(after - before for before, after in pairwise(moments))
