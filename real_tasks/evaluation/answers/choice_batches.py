"""Questions with their answers as rows of tokens, and where the answers' tokens are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from real_tasks.models.kept_states import batch_key
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.asked import Asked
from real_tasks.reading.shared_rows import (
    MAX_SHARED_ROW,
    SharedBatch,
    SharedRow,
    common_length,
    filled,
)


class _Read(NamedTuple):
    """A token of an answer, and the column of its row at which it is predicted."""

    column: int
    token: int
    answer: int
    place_in_answer: int


ChoiceRow = tuple[SharedRow, list[_Read]]
"""A context with ends of answers, and the answers' tokens that are predicted in it."""


@dataclass(frozen=True)
class ChoiceBatch:
    """Contexts, each with its answers, and where the answers' tokens are predicted.

    Attributes:
        rows: the contexts, without the common prefix, are the beginnings, the answers the ends.
        reads: flat index, row after row, of every position that predicts answer tokens.
        at: of each answer token the one of `reads` that predicts it.
        targets: the answer tokens.
        slots: flat index of each answer token into ``[answer, token of the answer]``.
        key: tells the batch from others, the common prefix included.
    """

    key: str
    rows: SharedBatch
    reads: Int[Tensor, "read"]
    at: Int[Tensor, "token"]
    targets: Int[Tensor, "token"]
    slots: Int[Tensor, "token"]

    def part(self, start: int, stop: int) -> "ChoiceBatch":
        """Return the rows from ``start`` up to, and without, ``stop``."""
        n_rows, width = self.rows.input_ids.shape
        if (start, stop) == (0, n_rows):
            return self
        bounds = torch.tensor([start * width, stop * width], device=self.reads.device)
        first, end = torch.searchsorted(self.reads, bounds).tolist()
        own = (self.at >= first) & (self.at < end)
        reads = self.reads[first:end] - start * width
        key, rows = batch_key(self.key, start, stop), self.rows.part(start, stop)
        at, targets, slots = self.at[own] - first, self.targets[own], self.slots[own]
        return ChoiceBatch(key, rows, reads, at, targets, slots)


def rows_of(asked: Asked, n_prefix: int, first: int, share: bool) -> list[ChoiceRow]:
    """Make the rows of a question: one, unless it grows too long or answers may not share.

    What answers begin with in common stands in a row once. The context's first ``n_prefix`` tokens
    are left out, as they are read for all rows at once; ``first`` is the number of its first answer
    among those of all questions.
    """
    rows: list[ChoiceRow] = []
    before: Sequence[int] = ()
    for number in sorted(range(len(asked.texts)), key=lambda i: list(asked.texts[i])):
        text = asked.texts[number]
        answer = text[asked.split :]
        # The last token predicts nothing that is asked for, but a text's length may count.
        end = answer[:-1] if share else answer
        shared = common_length(before, end)
        if not rows or not share or len(rows[-1][0].tokens) + len(end) - shared > MAX_SHARED_ROW:
            rows.append((SharedRow(text[n_prefix : asked.split]), []))
            shared = 0
        row, reads = rows[-1]
        columns = [len(row.beginning) - 1, *row.add(end, shared)]
        for place, (column, token) in enumerate(zip(columns, answer, strict=False)):
            reads.append(_Read(column, token, first + number, place))
        before = end
    return rows


def batch_of(
    loaded: LoadedModel, rows: Sequence[ChoiceRow], longest: int, share: bool, prefix: Sequence[int]
) -> ChoiceBatch:
    """Make a batch of rows; ``longest`` is the number of tokens of the longest of all answers."""
    key = batch_key(share, list(prefix), [(row.tokens, row.positions) for row, _ in rows])
    batch = filled(loaded, [row for row, _ in rows], share)
    width = batch.input_ids.shape[1]
    flat = [[index * width + r.column for r in many] for index, (_, many) in enumerate(rows)]
    reads, at = torch.tensor(sum(flat, [])).unique(return_inverse=True)
    targets = torch.tensor([r.token for _, many in rows for r in many])
    slots = torch.tensor([r.answer * longest + r.place_in_answer for _, many in rows for r in many])
    placed = [tensor.to(loaded.device) for tensor in (reads, at, targets, slots)]
    return ChoiceBatch(key, batch, *placed)
