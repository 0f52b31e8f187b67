"""Interventions: displacements of activations, added by hooks that always remove themselves.

A displacement of heads is added at the input of ``o_proj`` (REAL, section 3.3), which equals adding
``W_o @ displacement`` to its output; one of a layer to the residual stream after the block; one of
an MLP to its output. Which positions get it is the token scope; see
`real_tasks.steering.positions`.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from real_tasks.models.families import decoder_of, model_shape, sites
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.positions import SteeredPositions, generate_tells_prompt_width
from real_tasks.vocabulary.errors import OverflowedError, UserInputError
from real_tasks.vocabulary.types import ModuleKind, TokenScope

LONGEST = 1e15
"""Length up to which a displacement can be computed with: norms square what a layer gets, float32
ends at 3e38, and layers may yet multiply it by a thousand."""


@dataclass(frozen=True)
class Intervention:
    """What is added to activations, and where.

    Attributes:
        displacement: by layer, the vector that is added; layers that are not named stay as they
            are. For heads it is as wide as the input of ``o_proj``, heads one after another; for
            the other kinds as the residual stream.
        scope: the positions that are steered.
        kind: the modules that are displaced.
    """

    displacement: Mapping[int, Float[Tensor, "width"]]
    scope: TokenScope
    kind: ModuleKind = "head"


@contextmanager
def applied(
    model: LoadedModel | PreTrainedModel,
    intervention: Intervention | None,
    prompt_lengths: Int[Tensor, "row"] | None = None,
) -> Iterator[None]:
    """Steer a model within the context: its forward passes and its ``generate``.

    ``generate`` tells the prompt from the generated text itself, with or without a cache, for
    prompts filled up on the left. A forward pass outside of ``generate`` takes the prompt's end
    from ``prompt_lengths``; without them, from a cache given as ``past_key_values`` (what follows a
    filled one is generated); without either, ``last`` steers each row's last unmasked position.

    Args:
        model: one thread's own model object; contexts may be nested, their displacements add up.
        intervention: None leaves the model as it is.
        prompt_lengths: tokens of each row's prompt, for rows filled up on the right.

    Raises:
        UserInputError: the displacement does not fit the model or is not finite; in a forward pass,
            scope ``generated`` without a way to know where the prompt ends; in ``generate``,
            prompts filled up on the right.
    """
    if intervention is None:
        yield
        return
    plain = model.model if isinstance(model, LoadedModel) else model
    check_fits(plain, intervention)
    decoder = decoder_of(plain)
    positions = SteeredPositions(intervention.scope, prompt_lengths, decoder.forward)
    places = sites(plain, intervention.kind)
    with ExitStack() as hooks:
        handle = decoder.register_forward_pre_hook(positions.before_forward, with_kwargs=True)
        hooks.callback(handle.remove)
        for layer, displacement in intervention.displacement.items():
            addition = _Addition(displacement, positions)
            if intervention.kind == "head":
                handle = places[layer].register_forward_pre_hook(addition.to_input)
            else:
                handle = places[layer].register_forward_hook(addition.to_output)
            hooks.callback(handle.remove)
        hooks.enter_context(generate_tells_prompt_width(plain, positions))
        yield


def check_fits(model: PreTrainedModel, intervention: Intervention) -> None:
    """Check that an intervention fits a model.

    Raises:
        UserInputError: a layer that the model does not have, or another width.
        OverflowedError: NaN or infinity, in the model's type too, or longer than `LONGEST`.
    """
    shape, kind = model_shape(model), intervention.kind
    width = shape.modules_per_layer(kind) * shape.width(kind)
    for layer, displacement in intervention.displacement.items():
        if not 0 <= layer < shape.n_layers:
            raise UserInputError(
                f"the intervention steers layer {layer}, but the model has layers 0 to "
                f"{shape.n_layers - 1}; use the model that the intervention was made for"
            )
        if displacement.shape != (width,):
            heads = f" ({shape.n_heads} heads of {shape.head_dim})" if kind == "head" else ""
            raise UserInputError(
                f"layer {layer}: a displacement of shape {list(displacement.shape)} for "
                f"{_SITES[kind]} of [{width}]{heads}; use the model that the intervention was made "
                "for"
            )
        if not displacement.isfinite().all():
            raise OverflowedError(f"layer {layer}: the displacement holds NaN or infinity")
        rounded = displacement.to(model.dtype)
        if not rounded.isfinite().all() or rounded.double().norm() > LONGEST:
            raise OverflowedError(
                f"layer {layer}: a displacement of length {float(displacement.double().norm()):g}, "
                f"too long to be computed with in {str(model.dtype).removeprefix('torch.')}; steer "
                "less (a smaller alpha)"
            )


_SITES: dict[ModuleKind, str] = {
    "head": "an o_proj input",
    "layer": "the output of a decoder layer",
    "mlp": "the output of an MLP",
}


class _Addition:
    """Adds a displacement at the steered positions, on whatever device and in whatever type."""

    def __init__(self, displacement: Float[Tensor, "width"], positions: SteeredPositions) -> None:
        self._vector = displacement
        self._positions = positions
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def to_input(self, _site: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self._positions.any:
            return None
        return (self._displaced(args[0]), *args[1:])

    def to_output(self, _site: nn.Module, _args: Any, output: Any) -> Any:
        if not self._positions.any:
            return None
        if isinstance(output, tuple):
            return (self._displaced(output[0]), *output[1:])
        return self._displaced(output)

    def _displaced(self, values: Tensor) -> Float[Tensor, "row position width"]:
        place = (values.device, values.dtype)
        if place not in self._placed:
            # Rounded to the model's type only here: weights may be stored in another one.
            self._placed[place] = self._vector.to(*place)
        added = self._placed[place]
        if self._positions.mask is not None:
            added = self._positions.mask[..., None].to(values.device) * added
        return values + added
