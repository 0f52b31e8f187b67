"""What is done at one place in a forward pass: constants added, operators at some modules."""

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.edits import Edit
from real_tasks.steering.fits import layer_displacement
from real_tasks.steering.gates import Decision
from real_tasks.steering.positions import Positions
from real_tasks.vocabulary.scopes import Scope
from real_tasks.vocabulary.types import ModelShape

Step = Callable[..., Tensor | None]
"""From ``[row, position, width]`` to the same changed; None leaves it as it is. What changes the
writing of a projection is given what that puts out, and what it reads."""


def steps_at(
    pairs: Sequence[tuple[Edit, Decision | None]],
    strength: float,
    positions: Positions,
    shape: ModelShape,
) -> list[Step]:
    """Return what is done at one place; constants of one scope in a row are summed up first."""
    steps: list[Step] = []

    def constant(pair: tuple[Edit, Decision | None]) -> Scope | None:
        edit, gate = pair
        return edit.scope if gate is None and edit.displacement(strength) is not None else None

    for scope, group in groupby(pairs, constant):
        members = list(group)
        if scope is not None:
            vectors = [layer_displacement(edit, strength, shape) for edit, _ in members]
            steps.append(Addition(sum(vectors[1:], vectors[0]), scope, positions))
        else:
            steps += [Change(e, strength, g, positions, shape) for e, g in members]
    return steps


class Addition:
    """Adds a displacement at the steered positions, on whatever device and in whatever type."""

    def __init__(
        self, displacement: Float[Tensor, "width"], scope: Scope, positions: Positions
    ) -> None:
        self.vector = displacement
        self.scope = scope
        self._positions = positions
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __call__(self, values: Float[Tensor, "row position width"]) -> Tensor | None:
        """Return the values with the displacement where the scope says; None where nowhere."""
        steered = self._positions.steered(self.scope)
        if steered is False:
            return None
        place = (values.device, values.dtype)
        if place not in self._placed:
            # Rounded to the model's type only here: weights may be stored in another one.
            self._placed[place] = self.vector.to(*place)
        added = self._placed[place]
        if steered is not True:
            added = steered[..., None].to(values.device) * added
        return values + added


class Change:
    """Has an operator change some modules of a place, or what they write, where it may."""

    def __init__(
        self,
        edit: Edit,
        strength: float,
        gate: Decision | None,
        positions: Positions,
        shape: ModelShape,
    ) -> None:
        self._edit = edit
        self._strength = strength * edit.weights
        self._gate = gate
        self._positions = positions
        self._layer = edit.layers[0]
        spans = [shape.span(module) for module in edit.modules]
        whole = len(spans) == 1 and spans[0] == slice(0, shape.part_width(edit.kind))
        columns = [torch.arange(span.start, span.stop) for span in spans]
        self._columns = None if whole else torch.stack(columns)
        self._placed: dict[torch.device, tuple[dict[str, Tensor], Tensor, Tensor | None]] = {}

    def __call__(
        self,
        values: Float[Tensor, "row position width"],
        read: Float[Tensor, "row position d_in"] | None = None,
    ) -> Tensor | None:
        """Return the values changed where scope and gate let it; None where nowhere.

        Where the operator writes, they are what a projection puts out that has read ``read``.
        """
        steered = self._positions.steered(self._edit.scope)
        if steered is False:
            return None
        tensors, strength, columns = self._on(values.device)
        masks = [] if steered is True else [steered.to(values.device)]
        if self._gate is not None:
            opened = self._gate.strength(self._layer).to(values.device)
            strength = strength * opened[..., None]
            # Where a gate is closed not a bit may change, whatever the operator rounds.
            masks.append(opened != 0)
        source = values if read is None else read
        own = source[..., None, :] if columns is None else source[..., columns]
        changed = self._changed(own, tensors, strength, values)
        before = own if read is None else values
        for mask in masks:
            changed = torch.where(mask[(..., *[None] * (changed.dim() - 2))], changed, before)
        if read is not None:
            return changed
        if columns is None:
            return changed.squeeze(-2)
        result = values.clone()
        result[..., columns.flatten()] = changed.flatten(-2)
        return result

    def _changed(
        self, own: Tensor, tensors: dict[str, Tensor], strength: Tensor, values: Tensor
    ) -> Tensor:
        # Sums over a module's numbers want more than half precision.
        x = own.to(torch.promote_types(own.dtype, torch.float32))
        changed = self._edit.operator.apply(x, tensors, strength)
        if self._edit.operator.writes:
            return (values + changed).to(values.dtype)
        if self._edit.keep_norm:
            length = changed.norm(dim=-1, keepdim=True)
            changed = changed * (x.norm(dim=-1, keepdim=True) / length.clamp_min(1e-30))
        return changed.to(own.dtype)

    def _on(self, device: torch.device) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """Return tensors, strengths and columns, brought to a device once."""
        if device not in self._placed:
            tensors = {name: tensor.to(device) for name, tensor in self._edit.tensors.items()}
            columns = None if self._columns is None else self._columns.to(device)
            self._placed[device] = (tensors, self._strength.to(device), columns)
        return self._placed[device]
