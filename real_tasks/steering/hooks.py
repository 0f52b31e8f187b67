"""Hooks that do edits within a context, and always remove themselves.

A change at the input of ``o_proj`` (heads; REAL, section 3.3) equals ``W_o`` times it at its
output. Which positions get it is the scope, see `real_tasks.vocabulary.scopes`; when, the gate.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.models.families import Place, decoder_of, hook_output, model_shape, places
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention, in_order
from real_tasks.steering.fits import check_fits, layer_displacement
from real_tasks.steering.gates import Decision
from real_tasks.steering.positions import Positions, generate_tells_prompt_width
from real_tasks.vocabulary.scopes import Scope
from real_tasks.vocabulary.types import ModelShape

Step = Callable[[Tensor], Tensor | None]
"""From ``[row, position, width]`` to the same changed; None leaves it as it is."""


@contextmanager
def applied(
    model: LoadedModel | PreTrainedModel,
    intervention: Intervention | None,
    prompt_lengths: Int[Tensor, "row"] | None = None,
    gated_lengths: Int[Tensor, "row"] | None = None,
) -> Iterator[None]:
    """Steer a model within the context: its forward passes and its ``generate``.

    ``generate`` tells the prompt from the generated text itself, with or without a cache, for
    prompts filled up on the left. A forward pass outside of ``generate`` takes the prompt's end
    from ``prompt_lengths``; without them, from a cache given as ``past_key_values`` (what follows a
    filled one is generated); without either, ``last`` steers each row's last unmasked position, and
    the whole row is the prompt.

    Args:
        model: one thread's own model object; contexts may be nested, the outer edits come first.
        intervention: None leaves the model as it is.
        prompt_lengths: tokens of each row's prompt, for rows filled up on the right.
        gated_lengths: tokens of each row that gates take for the prompt, where that is not what
            scopes take for it.

    Raises:
        UserInputError: the edits do not fit the model or are not finite; in a forward pass,
            scope ``generated`` without a way to know where the prompt ends; in ``generate``,
            prompts filled up on the right.
    """
    if intervention is None or intervention.is_identity:
        yield
        return
    plain = model.model if isinstance(model, LoadedModel) else model
    check_fits(plain, intervention)
    decoder = decoder_of(plain)
    positions = Positions(prompt_lengths, decoder.forward)
    everywhere = all(edit.scope == "all" and not edit.gate for edit in intervention.edits)
    with ExitStack() as hooks:
        handle = decoder.register_forward_pre_hook(positions.before_forward, with_kwargs=True)
        hooks.callback(handle.remove)
        for handle in _hooked(plain, intervention, positions, gated_lengths):
            hooks.callback(handle.remove)
        hooks.enter_context(generate_tells_prompt_width(plain, positions, everywhere))
        yield


def _hooked(
    model: PreTrainedModel,
    intervention: Intervention,
    positions: Positions,
    gated_lengths: Int[Tensor, "row"] | None,
) -> Iterator[torch.utils.hooks.RemovableHandle]:
    """Hook what gates read, then what is edited, place after place."""
    edits, shape = intervention.edits, model_shape(model)
    # Edits behind one gate have one decision.
    fitted = {id(edit.gate): edit.gate for edit in edits if edit.gate}
    decisions = {key: Decision(gate, positions, gated_lengths) for key, gate in fitted.items()}
    read = [(key, site) for key, gate in fitted.items() for site in gate.gate.reads]
    lie = {
        kind: places(model, kind) for kind in {s.kind for _, s in read} | {e.kind for e in edits}
    }
    for key, site in read:
        note = partial(decisions[key].note, site, shape.span(site))
        yield lie[site.kind][site.layer].hook(note)
    for layer, kind in in_order(edits):
        here = [
            (edit.at(layer), decisions.get(id(edit.gate)))
            for edit in edits
            if edit.kind == kind and layer in edit.layers
        ]
        yield from _steered(lie[kind][layer], _steps(here, intervention.strength, positions, shape))


def _steered(place: Place, steps: Sequence[Step]) -> Iterator[torch.utils.hooks.RemovableHandle]:
    def change(values: Tensor) -> Tensor | None:
        changed = values
        for step in steps:
            found = step(changed)
            changed = changed if found is None else found
        return None if changed is values else changed

    if place.also_output_of is None:
        yield place.hook(change)
        return
    pending: list[Tensor] = []

    def change_and_keep(values: Tensor) -> Tensor | None:
        pending.clear()
        changed = change(values)
        if changed is not None:
            pending.append(changed - values)
        return changed

    yield place.hook(change_and_keep)
    yield hook_output(place.also_output_of, lambda out: out + pending[0] if pending else None)


def _steps(
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
            steps.append(_Addition(sum(vectors[1:], vectors[0]), scope, positions).__call__)
        else:
            steps += [_Change(e, strength, g, positions, shape).__call__ for e, g in members]
    return steps


class _Addition:
    """Adds a displacement at the steered positions, on whatever device and in whatever type."""

    def __init__(
        self, displacement: Float[Tensor, "width"], scope: Scope, positions: Positions
    ) -> None:
        self._vector = displacement
        self._scope = scope
        self._positions = positions
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __call__(self, values: Tensor) -> Tensor | None:
        steered = self._positions.steered(self._scope)
        if steered is False:
            return None
        place = (values.device, values.dtype)
        if place not in self._placed:
            # Rounded to the model's type only here: weights may be stored in another one.
            self._placed[place] = self._vector.to(*place)
        added = self._placed[place]
        if steered is not True:
            added = steered[..., None].to(values.device) * added
        return values + added


class _Change:
    """Has an operator change some modules of a place where scope and gate let it."""

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
        spans = [shape.span(module) for module in edit.modules]
        whole = len(spans) == 1 and spans[0] == slice(0, shape.part_width(edit.kind))
        columns = [torch.arange(span.start, span.stop) for span in spans]
        self._columns = None if whole else torch.stack(columns)
        self._placed: dict[torch.device, tuple[dict[str, Tensor], Tensor, Tensor | None]] = {}

    def __call__(self, values: Float[Tensor, "row position width"]) -> Tensor | None:
        steered = self._positions.steered(self._edit.scope)
        if steered is False:
            return None
        tensors, strength, columns = self._on(values.device)
        opened = None
        if self._gate is not None:
            opened = self._gate.strength().to(values.device)[..., None]
            strength = strength * opened
        own = values[..., None, :] if columns is None else values[..., columns]
        changed = self._changed(own, tensors, strength)
        if opened is not None:
            # Where a gate is closed not a bit may change, whatever the operator rounds.
            changed = torch.where(opened[..., None] != 0, changed, own)
        if steered is not True:
            changed = torch.where(steered.to(values.device)[..., None, None], changed, own)
        if columns is None:
            return changed.squeeze(-2)
        result = values.clone()
        result[..., columns.flatten()] = changed.flatten(-2)
        return result

    def _changed(self, own: Tensor, tensors: dict[str, Tensor], strength: Tensor) -> Tensor:
        # Sums over a module's numbers want more than half precision.
        x = own.to(torch.promote_types(own.dtype, torch.float32))
        changed = self._edit.operator.apply(x, tensors, strength)
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
