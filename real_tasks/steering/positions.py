"""Steered positions: which ones a token scope means, in a forward pass and in ``generate``.

A *token scope* is one of:

- ``all``: every position, prompt included;
- ``generated``: the positions after the prompt;
- ``last``: the last position of the prompt and every later one. While text is generated with a
  cache, every new token is the last when it is processed, so this is "the last position" at each
  step; without a cache the same positions are steered, and the text is the same.

Positions are columns of the padded batch, counted from the start of the sequence, cache included.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import TokenScope


class SteeredPositions:
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


@contextmanager
def generate_tells_prompt_width(
    model: PreTrainedModel, positions: SteeredPositions
) -> Iterator[None]:
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


def _last_column(inputs: Tensor, attention_mask: Tensor | None) -> Int[Tensor, "row"] | int:
    if attention_mask is None or attention_mask.dim() != 2:
        return inputs.shape[1] - 1
    columns = torch.arange(inputs.shape[1], device=inputs.device)
    return (columns * (attention_mask != 0)).argmax(dim=1)


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
