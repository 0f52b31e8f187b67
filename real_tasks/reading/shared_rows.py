"""Rows that hold the common beginning of several texts once, and their ends one after another.

The answers of a question share its words. A mask keeps each end from the others, and positions
count on from the common beginning in each, so that every text gets what it gets alone, for a
fraction of the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.models.loading import LoadedModel

MAX_SHARED_ROW = 1024
"""Tokens up to which texts join a row; the mask grows with the square of a row's length."""
WORTHWHILE = 0.25
"""Share of its tokens that a text has to save to join a row."""
BEGINNING = 0
PADDING = -1


@dataclass
class SharedRow:
    """A common beginning and the ends added to it.

    `segments` is 0 in the beginning and k in the k-th end.
    """

    beginning: Sequence[int]
    tokens: list[int] = field(init=False)
    positions: list[int] = field(init=False)
    segments: list[int] = field(init=False)

    def __post_init__(self) -> None:
        """Start with the beginning alone."""
        self.tokens = list(self.beginning)
        self.positions = list(range(len(self.tokens)))
        self.segments = [BEGINNING] * len(self.tokens)

    def add(self, end: Sequence[int]) -> int:
        """Add an end and return the column of its first token."""
        column, first = len(self.tokens), len(self.beginning)
        self.tokens += end
        self.positions += range(first, first + len(end))
        self.segments += [self.segments[-1] + 1] * len(end)
        return column


@dataclass(frozen=True)
class SharedBatch:
    """Rows filled up on the right, on the model's device.

    Attributes:
        segments: 0 in a row's beginning, k in its k-th end, -1 in the padding.
        beginnings: lengths of the rows' beginnings.
        shares: whether any row has an end.
    """

    input_ids: Int[Tensor, "row position"]
    position_ids: Int[Tensor, "row position"]
    segments: Int[Tensor, "row position"]
    beginnings: Int[Tensor, "row"]
    shares: bool

    def decoder_inputs(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the arguments for the decoder; ``dtype`` is that of the model."""
        mask = _additive_mask(self.segments, dtype) if self.shares else self.segments != PADDING
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "attention_mask": mask,
            "use_cache": False,
        }


def filled(loaded: LoadedModel, rows: Sequence[SharedRow], shares: bool) -> SharedBatch:
    """Fill rows up to the longest of them.

    Args:
        loaded: the model, for its device and padding.
        rows: the rows.
        shares: False promises that each row is one plain text, so that the model's own causal mask
            serves.
    """
    width = max(len(row.tokens) for row in rows)

    def full(values: Sequence[Sequence[int]], fill: int) -> Int[Tensor, "row position"]:
        padded = [[*v, *[fill] * (width - len(v))] for v in values]
        return torch.tensor(padded, device=loaded.device)

    return SharedBatch(
        full([row.tokens for row in rows], loaded.pad_token_id),
        full([row.positions for row in rows], 0),
        full([row.segments for row in rows], PADDING),
        torch.tensor([len(row.beginning) for row in rows], device=loaded.device),
        shares,
    )


def _additive_mask(
    segments: Int[Tensor, "row position"], dtype: torch.dtype
) -> Float[Tensor, "row 1 position position"]:
    """Return what is added to attention scores: 0 where a position may look, else the lowest."""
    seen, sees = segments[:, None, :], segments[:, :, None]
    visible = ((seen == BEGINNING) | (seen == sees)).tril()
    mask = torch.zeros(visible.shape, dtype=dtype, device=segments.device)
    mask.masked_fill_(~visible, torch.finfo(dtype).min)
    return rearrange(mask, "row sees seen -> row 1 sees seen")


def may_share(loaded: LoadedModel, longest: int) -> bool:
    """Say whether texts of up to ``longest`` tokens can share rows.

    What is common to two texts is read alike only with the same frequencies
    (`real_tasks.models.rope`). One mask serves all layers, so it cannot stand in for a sliding
    window that would cut, in some layers or in all; and only PyTorch's own attention takes a mask
    of this form.
    """
    config = loaded.model.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager"):
        return False
    # None, and in some configurations 0, stand for no window.
    window = getattr(config, "sliding_window", None) or longest
    return longest <= window and loaded.all_short(longest)


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def group_by_beginning(ids: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Group texts so that a row per group takes few tokens.

    Returns:
        For each group the length of its common beginning (all of it, for a text alone) and the
        indices of its texts; every text is in one group.
    """
    groups: list[tuple[int, list[int]]] = []
    for index in sorted(range(len(ids)), key=lambda i: list(ids[i])):
        if groups:
            length, members = groups[-1]
            common = common_length(ids[members[0]][:length], ids[index])
            saved = len(members) * common - (len(members) - 1) * length
            width = sum(len(ids[i]) - common for i in (*members, index)) + common
            if saved > WORTHWHILE * len(ids[index]) and width <= MAX_SHARED_ROW:
                groups[-1] = (common, [*members, index])
                continue
        groups.append((len(ids[index]), [index]))
    return groups
