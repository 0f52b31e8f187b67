"""Hooks that do edits within a context, and always remove themselves.

A change at the input of ``o_proj`` (heads; REAL, section 3.3) equals ``W_o`` times it at its
output. Which positions get it is the scope, see `real_tasks.vocabulary.scopes`; when, the gate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.models.families import decoder_of
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import Place, hook_output, model_shape, places
from real_tasks.steering.edits import Intervention, in_order
from real_tasks.steering.fits import check_fits
from real_tasks.steering.gates import Decision
from real_tasks.steering.positions import Positions, generate_tells_prompt_width
from real_tasks.steering.steps import Addition, Step, steps_at


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
    steering = Steering(plain, intervention, prompt_lengths, gated_lengths)
    everywhere = all(edit.scope == "all" and not edit.gate for edit in intervention.edits)
    with steering.hooked(), generate_tells_prompt_width(plain, steering.positions, everywhere):
        yield


class Steering:
    """An intervention made ready for one model object, to be hooked in as often as wanted.

    Attributes:
        positions: where forward passes stand; its ``rows`` says which rows of a batch are steered.
        decisions: of the gates; edits behind one gate have one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        intervention: Intervention,
        prompt_lengths: Int[Tensor, "row"] | None = None,
        gated_lengths: Int[Tensor, "row"] | None = None,
    ) -> None:
        """Raise what `applied` raises of the edits and the model; see there for the arguments."""
        check_fits(model, intervention)
        self._decoder = decoder_of(model)
        self.positions = positions = Positions(prompt_lengths, self._decoder.forward)
        edits, shape = intervention.edits, model_shape(model)
        fitted = {id(edit.gate): edit.gate for edit in edits if edit.gate}
        decided = {key: Decision(gate, positions, gated_lengths) for key, gate in fitted.items()}
        self.decisions = tuple(decided.values())
        read = [(key, site) for key, gate in fitted.items() for site in gate.gate.reads]
        kinds = {site.kind for _, site in read} | {edit.kind for edit in edits}
        lie = {kind: places(model, kind) for kind in kinds}
        self._reads = [
            (lie[site.kind][site.layer], partial(decided[key].note, site, shape.span(site)))
            for key, site in read
        ]
        self._steps: dict[Place, list[Step]] = {}
        for layer, kind in in_order(edits):
            for writes in (False, True):
                here = [
                    (edit.at(layer), decided.get(id(edit.gate)))
                    for edit in edits
                    if edit.kind == kind and layer in edit.layers and edit.operator.writes == writes
                ]
                at = lie[kind][layer]
                at = replace(at, side="write") if writes else at
                steps = steps_at(here, intervention.strength, positions, shape)
                if steps:
                    self._steps.setdefault(at, []).extend(steps)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Steer the forward passes within the context; what gates read comes before all edits."""
        positions = self.positions
        with ExitStack() as hooks:
            before = self._decoder.register_forward_pre_hook
            hooks.callback(before(positions.before_forward, with_kwargs=True).remove)
            for place, note in self._reads:
                hooks.callback(place.hook(partial(_noted, note, positions)).remove)
            for place, steps in self._steps.items():
                for handle in _steered(place, partial(_changed, steps, positions)):
                    hooks.callback(handle.remove)
            yield

    @cached_property
    def constants(self) -> dict[Place, Float[Tensor, "width"]] | None:
        """By place what is added at every position behind the prompt.

        None where something else is done there than adding a constant.
        """
        added: dict[Place, Tensor] = {}
        for place, steps in self._steps.items():
            for step in steps:
                if not isinstance(step, Addition):
                    return None
                if isinstance(step.scope, str):
                    added[place] = added.get(place, 0) + step.vector
        return added


@contextmanager
def adding_to_rows(added: Mapping[Place, Float[Tensor, "row one width"]]) -> Iterator[None]:
    """Add, within the context, a vector of its own to each row of a batch, at all positions."""
    with ExitStack() as hooks:
        for place, vectors in added.items():
            for handle in _steered(place, _adding(vectors)):
                hooks.callback(handle.remove)
        yield


def _adding(vectors: Tensor) -> Step:
    def add(values: Tensor) -> Tensor:
        nonlocal vectors
        vectors = vectors.to(values)  # brought to the device once, into the model's type
        return values + vectors

    return add


def _noted(note: Callable[[Tensor], None], positions: Positions, values: Tensor) -> None:
    note(positions.own(values))


def _changed(
    steps: Sequence[Step], positions: Positions, values: Tensor, *read: Tensor
) -> Tensor | None:
    """Return a place's values with the steps done to the rows that are looked at."""
    own = changed = positions.own(values)
    given = [positions.own(one) for one in read]
    for step in steps:
        found = step(changed, *given)
        changed = changed if found is None else found
    if changed is own:
        return None
    if positions.rows is None:
        return changed
    return values.index_copy(0, positions.rows.to(values.device), changed)


def _steered(place: Place, change: Step) -> Iterator[torch.utils.hooks.RemovableHandle]:
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
