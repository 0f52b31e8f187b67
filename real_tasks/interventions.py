"""Interventions: displacements of head activations, added by hooks that always remove themselves.

A displacement is added at the input of ``o_proj`` (REAL, section 3.3), which equals adding
``W_o @ displacement`` to its output. Which positions get it is the *token scope*:

- ``all``: every position, prompt included;
- ``generated``: the positions after the prompt;
- ``last``: the last position of the prompt and every later one. While text is generated with a
  cache, every new token is the last when it is processed, so this is "the last position" at each
  step; without a cache the same positions are steered, and the text is the same.

Positions are columns of the padded batch, counted from the start of the sequence, cache included.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from real_tasks.errors import UserInputError
from real_tasks.models import LoadedModel, decoder_of, model_shape, output_projections
from real_tasks.types import TokenScope


@dataclass(frozen=True)
class Intervention:
    """What is added to head activations, and where.

    Attributes:
        displacement: by layer, the vector added at the input of its ``o_proj``, heads one after
            another; layers that are not named stay as they are.
        scope: the positions that are steered.
    """

    displacement: Mapping[int, Float[Tensor, "width"]]
    scope: TokenScope


class _Positions:
    """Which positions of the present forward pass are steered.

    Attributes:
        mask: None when it is every position.
        any: False when it is none.
    """

    def __init__(
        self, scope: TokenScope, prompt_lengths: Int[Tensor, "row"] | None, forward: Any
    ) -> None:
        self.scope = scope
        self.prompt_lengths = prompt_lengths
        self.prompt_width: int | None = None
        self.mask: Bool[Tensor, "row position"] | None = None
        self.any = True
        self._signature = inspect.signature(forward)

    def before_forward(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Work out the mask once per forward pass of the decoder; its layers read it."""
        if self.scope == "all":
            return
        call = self._signature.bind_partial(*args, **kwargs).arguments
        inputs = call["inputs_embeds"] if call.get("input_ids") is None else call["input_ids"]
        cache = call.get("past_key_values")
        n_cached = 0 if cache is None else int(cache.get_seq_length())
        first = self._first_steered(inputs, n_cached, cache is None, call.get("attention_mask"))
        columns = torch.arange(n_cached, n_cached + inputs.shape[1], device=inputs.device)
        if isinstance(first, int):
            self.any = n_cached + inputs.shape[1] > first
            self.mask = None if n_cached >= first else (columns >= first)[None, :]
        else:
            self.any, self.mask = True, columns[None, :] >= first[:, None]

    def _first_steered(
        self, inputs: Tensor, n_cached: int, no_cache: bool, attention_mask: Tensor | None
    ) -> int | Int[Tensor, "row"]:
        """Return the first steered column, of all rows or of each."""
        prompt_included = int(self.scope == "last")
        if self.prompt_width is not None:
            return self.prompt_width - prompt_included
        if self.prompt_lengths is not None:
            self._check_rows(inputs)
            return self.prompt_lengths.to(inputs.device) - prompt_included
        if n_cached:
            return n_cached
        if self.scope == "last":
            return _last_column(inputs, attention_mask)
        if no_cache:
            raise UserInputError(
                "token scope 'generated' needs to know where the prompt ends: call model.generate, "
                "or give applied() the prompt_lengths, or pass a cache as past_key_values (empty "
                "with the prompt, filled with what follows)"
            )
        return inputs.shape[1]

    def _check_rows(self, inputs: Tensor) -> None:
        assert self.prompt_lengths is not None
        if len(self.prompt_lengths) != inputs.shape[0]:
            raise UserInputError(
                f"{len(self.prompt_lengths)} prompt_lengths for a batch of {inputs.shape[0]} rows; "
                "give one per row"
            )


def _last_column(inputs: Tensor, attention_mask: Tensor | None) -> Int[Tensor, "row"] | int:
    if attention_mask is None or attention_mask.dim() != 2:
        return inputs.shape[1] - 1
    columns = torch.arange(inputs.shape[1], device=inputs.device)
    return (columns * (attention_mask != 0)).argmax(dim=1)


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
    positions = _Positions(intervention.scope, prompt_lengths, decoder.forward)
    projections = output_projections(plain)
    with ExitStack() as hooks:
        handle = decoder.register_forward_pre_hook(positions.before_forward, with_kwargs=True)
        hooks.callback(handle.remove)
        for layer, displacement in intervention.displacement.items():
            hook = _adds(displacement, projections[layer], positions)
            hooks.callback(projections[layer].register_forward_pre_hook(hook).remove)
        hooks.enter_context(_generate_tells_prompt_width(plain, positions))
        yield


def check_fits(model: PreTrainedModel, intervention: Intervention) -> None:
    """Check that an intervention fits a model.

    Raises:
        UserInputError: a layer that the model does not have, another width, or NaN or infinity.
    """
    shape = model_shape(model)
    width = shape.n_heads * shape.head_dim
    for layer, displacement in intervention.displacement.items():
        if not 0 <= layer < shape.n_layers:
            raise UserInputError(
                f"the intervention steers layer {layer}, but the model has layers 0 to "
                f"{shape.n_layers - 1}; use the model that the intervention was made for"
            )
        if displacement.shape != (width,):
            raise UserInputError(
                f"layer {layer}: a displacement of shape {list(displacement.shape)} for an o_proj "
                f"input of [{width}] ({shape.n_heads} heads of {shape.head_dim}); use the model "
                "that the intervention was made for"
            )
        if not displacement.isfinite().all():
            raise UserInputError(f"layer {layer}: the displacement holds NaN or infinity")


def _adds(
    displacement: Float[Tensor, "width"], projection: nn.Module, positions: _Positions
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
    weight = projection.get_parameter("weight")
    vector = displacement.to(weight.device)

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        values, *rest = args
        if not positions.any:
            return None
        # Rounded to the model's type only here: weights may be stored in another one.
        added = vector.to(values.dtype)
        if positions.mask is not None:
            added = positions.mask[..., None].to(values.device) * added
        return (values + added, *rest)

    return hook


@contextmanager
def _generate_tells_prompt_width(model: PreTrainedModel, positions: _Positions) -> Iterator[None]:
    """Let the instance's ``generate`` record the width of its prompts while it runs."""
    before = vars(model).get("generate")
    generate: Any = model.generate

    def steered_generate(inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        prompt = _prompt_of(inputs, kwargs)
        if positions.scope != "all":
            _check_left_padding(kwargs.get("attention_mask"))
        outer, positions.prompt_width = positions.prompt_width, prompt
        try:
            return generate(inputs, *args, **kwargs)
        finally:
            positions.prompt_width = outer

    vars(model)["generate"] = steered_generate
    try:
        yield
    finally:
        if before is None:
            del vars(model)["generate"]
        else:
            vars(model)["generate"] = before


def _prompt_of(inputs: Tensor | None, kwargs: dict[str, Any]) -> int:
    for given in (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds")):
        if given is not None and given.shape[1]:
            return int(given.shape[1])
    # Without a prompt, generate starts from one beginning-of-sequence token.
    return 1


def _check_left_padding(attention_mask: Tensor | None) -> None:
    if attention_mask is not None and not bool((attention_mask[:, -1] != 0).all()):
        raise UserInputError(
            "the prompts are filled up on the right; generate needs padding on the left "
            "(tokenizer.padding_side = 'left')"
        )
