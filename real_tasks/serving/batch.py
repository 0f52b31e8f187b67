"""The engine's batch: rows of different texts and steering that come and go between steps.

Rows are filled up on the left, so that all of them end in one column. Those that join are read in a
batch of their own first; then their keys and values are put below those that are there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import Place
from real_tasks.reading.batches import pad
from real_tasks.serving.rows import Row
from real_tasks.steering.hooks import Steering, adding_to_rows


class Batch:
    """Rows under way with their keys and values; the model's hooks while they are steered.

    Attributes:
        rows: in the order of the cache.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.rows: list[Row] = []
        self._loaded = loaded
        # Without the configuration every layer keeps all columns: those that have a window look
        # back as far as it goes, by their masks.
        self._cache = DynamicCache()
        self._mask: Bool[Tensor, "row column"] = torch.zeros(
            0, 0, dtype=torch.bool, device=loaded.device
        )
        self._hooks = ExitStack()

    def step(self) -> Float[Tensor, "row vocab"]:
        """Read every row's last token, and return the logits of what comes next."""
        n_tokens = len(self.rows[0].tokens)
        regime = self._loaded.regime
        if self._loaded.family.rereads and regime(n_tokens) != regime(n_tokens - 1):
            return self._reread()
        ids = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._loaded.device)
        grown = self._mask.new_ones(len(self.rows), 1)
        self._mask = torch.cat([self._mask, grown], dim=1)
        return _read(self._loaded, ids, self._mask, self._cache)

    def join(self, rows: Sequence[Row]) -> Float[Tensor, "row vocab"]:
        """Read the prompts of rows, add them to the batch, and return their first logits."""
        self._release()
        batch = pad(self._loaded, [row.tokens for row in rows], "left")
        width, cache = batch.mask.shape[1], DynamicCache()
        groups = _by_steering(rows)
        with _steered(rows, groups, width, read_before=False):
            logits = _read(self._loaded, batch.input_ids, batch.mask, cache)
        _keep_decisions(rows, groups)
        columns = max(width, self._mask.shape[1])
        masks = [_filled(mask, columns, -1) for mask in (self._mask, batch.mask)]
        self._mask = torch.cat(masks) if self.rows else batch.mask
        self._cache = _stacked(self._cache, cache, columns) if self.rows else cache
        self.rows += rows
        self._steer()
        return logits

    def drop_ended(self) -> None:
        """Take rows out whose generation has ended, and columns that no other row needs."""
        kept = [n for n, row in enumerate(self.rows) if not row.ended]
        if len(kept) == len(self.rows):
            return
        self._release()
        self.rows = [self.rows[n] for n in kept]
        if not kept:
            self._cache, self._mask = DynamicCache(), self._mask[:0, :0]
            return
        self._mask = self._mask[kept]
        first = int(self._mask.any(0).int().argmax())
        self._mask = self._mask[:, first:]
        for layer in _layers(self._cache):
            layer.keys = layer.keys[kept, :, first:]
            layer.values = layer.values[kept, :, first:]
        self._steer()

    def resume(self) -> None:
        """Steer the rows again, after others could not join them."""
        self._steer()

    def clear(self) -> None:
        """Forget all rows, as after a pass that failed."""
        for row in self.rows:
            row.ended = True
        self._release()
        self.rows, self._cache, self._mask = [], DynamicCache(), self._mask[:0, :0]

    def _reread(self) -> Float[Tensor, "row vocab"]:
        """Read the only row anew, as all its frequencies have changed."""
        (row,) = self.rows
        self._release()
        self._cache = DynamicCache()
        ids = torch.tensor([row.tokens], device=self._loaded.device)
        self._mask = torch.ones_like(ids, dtype=torch.bool)
        groups, width = _by_steering(self.rows), len(row.generation.prompt)
        with _steered(self.rows, groups, width, read_before=True):
            logits = _read(self._loaded, ids, self._mask, self._cache)
        self._steer()
        return logits

    def _steer(self) -> None:
        """Hook the rows' steering in for what follows their prompts."""
        self._release()
        groups = _by_steering(self.rows)
        adding = {one: added for one in groups if (added := one.constants) is not None}
        if len(groups) == 1 and all(row.generation.steering for row in self.rows):
            adding = {}  # one vector serves all rows
        others = {one: rows for one, rows in groups.items() if one not in adding}
        self._hooks.enter_context(_steered(self.rows, others, 0, read_before=True))
        if adding:
            by_row = [_added(row, adding) for row in self.rows]
            self._hooks.enter_context(adding_to_rows(_by_place(by_row)))

    def _release(self) -> None:
        self._hooks.close()


@contextmanager
def _steered(
    rows: Sequence[Row], groups: Mapping[Steering, list[int]], width: int, read_before: bool
) -> Iterator[None]:
    """Hook steering in, each for its group of the rows.

    Prompts have ``width`` columns, 0 where only what follows them is read. Where they were read
    before, gates have decided.
    """
    with ExitStack() as hooks:
        for steering, own in groups.items():
            everyone = len(own) == len(rows)
            steering.positions.rows = None if everyone else torch.tensor(own)
            for n, decision in enumerate(steering.decisions if read_before else ()):
                said = [kept for row in own if (kept := rows[row].gates[n]) is not None]
                if said:
                    decision.keep(torch.stack(said))
            hooks.enter_context(steering.positions.generating(width, read_before))
            hooks.enter_context(steering.hooked())
        yield


def _keep_decisions(rows: Sequence[Row], groups: Mapping[Steering, list[int]]) -> None:
    for steering, own in groups.items():
        for place, row in enumerate(own):
            kept = [decision.kept for decision in steering.decisions]
            rows[row].gates = [None if one is None else one[place] for one in kept]


def _by_steering(rows: Sequence[Row]) -> dict[Steering, list[int]]:
    groups: dict[Steering, list[int]] = {}
    for n, row in enumerate(rows):
        if row.generation.steering is not None:
            groups.setdefault(row.generation.steering, []).append(n)
    return groups


def _added(row: Row, adding: Mapping[Steering, dict[Place, Tensor]]) -> dict[Place, Tensor]:
    steering = row.generation.steering
    return {} if steering is None else adding.get(steering, {})


def _by_place(by_row: Sequence[dict[Place, Tensor]]) -> dict[Place, Tensor]:
    """Return for each place the vectors ``[row, 1, width]``, 0 for rows without one."""
    some = {place: vector for added in by_row for place, vector in added.items()}
    return {
        place: torch.stack([added.get(place, torch.zeros_like(v)) for added in by_row])[:, None]
        for place, v in some.items()
    }


def _read(
    loaded: LoadedModel,
    ids: Int[Tensor, "row position"],
    mask: Bool[Tensor, "row column"],
    cache: DynamicCache,
) -> Float[Tensor, "row vocab"]:
    """Read tokens behind what is cached, and return the logits behind the last one."""
    hidden = loaded.hidden_states(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )
    return loaded.logits(hidden[:, -1])


def _stacked(above: DynamicCache, below: DynamicCache, columns: int) -> DynamicCache:
    """Return a cache with the rows of both, filled up on the left."""
    for one, other in zip(_layers(above), _layers(below), strict=True):
        one.keys = torch.cat([_filled(layer.keys, columns, -2) for layer in (one, other)])
        one.values = torch.cat([_filled(layer.values, columns, -2) for layer in (one, other)])
    return above


def _layers(cache: DynamicCache) -> list[Any]:
    # The list's type is that of layers of every kind.
    return list(cache.layers)


def _filled(values: Tensor, columns: int, dim: Literal[-1, -2]) -> Tensor:
    """Return values with zeros before them along a dimension, up to a number of columns."""
    missing = columns - values.shape[dim]
    return F.pad(values, (missing, 0) if dim == -1 else (0, 0, missing, 0))
