"""Questions with their answers as rows of tokens, and where the answers' tokens are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from real_tasks.models.loading import LoadedModel
from real_tasks.reading.asked import Asked
from real_tasks.reading.shared_rows import MAX_SHARED_ROW, SharedBatch, SharedRow, filled


@dataclass(frozen=True)
class _Read:
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
        reads: flat index, row after row, of the position that predicts each answer token.
        targets: the answer tokens.
        slots: flat index of each answer token into ``[answer, token of the answer]``.
    """

    rows: SharedBatch
    reads: Int[Tensor, "token"]
    targets: Int[Tensor, "token"]
    slots: Int[Tensor, "token"]

    def part(self, start: int, stop: int) -> "ChoiceBatch":
        """Return the rows from ``start`` up to, and without, ``stop``."""
        n_rows, width = self.rows.input_ids.shape
        if (start, stop) == (0, n_rows):
            return self
        rows = replace(
            self.rows,
            input_ids=self.rows.input_ids[start:stop],
            position_ids=self.rows.position_ids[start:stop],
            segments=self.rows.segments[start:stop],
            beginnings=self.rows.beginnings[start:stop],
        )
        inside = (self.reads >= start * width) & (self.reads < stop * width)
        reads = self.reads[inside] - start * width
        return ChoiceBatch(rows, reads, self.targets[inside], self.slots[inside])


def rows_of(asked: Asked, n_prefix: int, first: int, share: bool) -> list[ChoiceRow]:
    """Make the rows of a question: one, unless it grows too long or answers may not share.

    Args:
        asked: the question.
        n_prefix: tokens of the context that are left out, as they are read for all rows at once.
        first: number of its first answer among those of all questions.
        share: whether several answers may stand in a row.
    """
    rows: list[ChoiceRow] = []
    for number, text in enumerate(asked.texts, start=first):
        own = text[asked.split :]
        if not rows or not share or len(rows[-1][0].tokens) + len(own) > MAX_SHARED_ROW:
            rows.append((SharedRow(text[n_prefix : asked.split]), []))
        row, reads = rows[-1]
        before = len(row.beginning) - 1
        # The last token predicts nothing that is asked for, but a text's length may count.
        start = row.add(own[:-1] if share else own)
        columns = [before, *range(start, start + len(own) - 1)]
        for place, (column, token) in enumerate(zip(columns, own, strict=True)):
            reads.append(_Read(column, token, number, place))
    return rows


def batch_of(
    loaded: LoadedModel, rows: Sequence[ChoiceRow], longest: int, share: bool
) -> ChoiceBatch:
    """Make a batch of rows; ``longest`` is the number of tokens of the longest of all answers."""
    batch = filled(loaded, [row for row, _ in rows], share)
    width = batch.input_ids.shape[1]
    reads = [(index * width + r.column, r) for index, (_, many) in enumerate(rows) for r in many]
    return ChoiceBatch(
        batch,
        torch.tensor([flat for flat, _ in reads], device=loaded.device),
        torch.tensor([r.token for _, r in reads], device=loaded.device),
        torch.tensor([r.answer * longest + r.place_in_answer for _, r in reads]).to(loaded.device),
    )
