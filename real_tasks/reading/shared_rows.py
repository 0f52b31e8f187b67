"""Rows that hold the common beginning of several texts once, and their ends one after another.

The answers of a question share its words, and often their own first ones. A mask keeps each end
from the others, and positions count on from what is common, so that every text gets what it gets
alone, for a fraction of the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from real_tasks.models.loading import LoadedModel

MAX_SHARED_ROW = 1024
"""Tokens up to which texts join a row; the mask grows with the square of a row's length."""
WORTHWHILE = 0.25
"""Share of its tokens that a text has to save to join a row."""


@dataclass
class SharedRow:
    """A common beginning and the ends added to it, which may begin alike themselves.

    A token sees those before it that its own text has: of each position the nearest one. So the
    positions say all of who sees whom, see `last_seen_from`.
    """

    beginning: Sequence[int]
    tokens: list[int] = field(init=False)
    positions: list[int] = field(init=False)
    _columns: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Start with the beginning alone."""
        self.tokens = list(self.beginning)
        self.positions = list(range(len(self.tokens)))

    def add(self, end: Sequence[int], shared: int = 0) -> list[int]:
        """Add an end and return the columns of its tokens.

        The first ``shared`` of them are those of the end that was added before it, and not added
        again.
        """
        column, first = len(self.tokens), len(self.beginning)
        self.tokens += end[shared:]
        self.positions += range(first + shared, first + len(end))
        self._columns = [*self._columns[:shared], *range(column, len(self.tokens))]
        return self._columns


@dataclass(frozen=True)
class SharedBatch:
    """Rows filled up on the right, on the model's device.

    Attributes:
        until: the last column of the row that sees each column.
        lengths: of the rows, without what fills them up.
        beginnings: lengths of the rows' beginnings.
        shares: whether any row has an end.
    """

    input_ids: Int[Tensor, "row position"]
    position_ids: Int[Tensor, "row position"]
    until: Int[Tensor, "row position"]
    lengths: Int[Tensor, "row"]
    beginnings: Int[Tensor, "row"]
    shares: bool

    def part(self, start: int, stop: int) -> "SharedBatch":
        """Return the rows from ``start`` up to, and without, ``stop``."""
        names = ("input_ids", "position_ids", "until", "lengths", "beginnings")
        return replace(self, **{name: getattr(self, name)[start:stop] for name in names})

    def decoder_inputs(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the arguments for the decoder; ``dtype`` is that of the model."""
        columns = torch.arange(self.until.shape[1], device=self.until.device)
        mask = columns < self.lengths[:, None]
        if self.shares:
            visible = (columns <= columns[:, None]) & (columns[:, None] <= self.until[:, None, :])
            mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            mask.masked_fill_(~visible, torch.finfo(dtype).min)
            mask = rearrange(mask, "row sees seen -> row 1 sees seen")
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "attention_mask": mask,
            "use_cache": False,
        }


def last_seen_from(positions: Sequence[int]) -> list[int]:
    """Return for every column the last one that sees it: before the next of no later position."""
    until = [len(positions) - 1] * len(positions)
    seen: list[int] = []
    for column, position in enumerate(positions):
        while seen and positions[seen[-1]] >= position:
            until[seen.pop()] = column - 1
        seen.append(column)
    return until


def filled(loaded: LoadedModel, rows: Sequence[SharedRow], shares: bool) -> SharedBatch:
    """Fill rows up to the longest of them; what fills them up sees nothing but itself.

    Where they are not to share (``shares``) each row is one plain text, so that the model's own
    causal mask serves.
    """
    width = max(len(row.tokens) for row in rows)

    def full(values: Sequence[int], fill: int) -> list[int]:
        return [*values, *[fill] * (width - len(values))]

    positions = [full(row.positions, 0) for row in rows]

    def placed(values: Sequence[Any]) -> Tensor:
        return torch.tensor(values, device=loaded.device)

    return SharedBatch(
        placed([full(row.tokens, loaded.pad_token_id) for row in rows]),
        placed(positions),
        placed([last_seen_from(one) for one in positions]),
        placed([len(row.tokens) for row in rows]),
        placed([len(row.beginning) for row in rows]),
        shares,
    )


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
