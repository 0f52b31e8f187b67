"""Positions of the present forward pass: which of them a scope means, and which are the prompt.

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

from real_tasks.models.replacing import replaced
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.scopes import PromptEnds, Scope

Steered = bool | Bool[Tensor, "#row position"]
"""Every position, none, or those of a mask."""


class Positions:
    """Where the present forward pass stands, in a batch and in ``generate``.

    Attributes:
        prompt_width: columns of the prompts within ``generate``, else None.
        number: of the present pass, so that what is worked out for it is not kept for another.
        n_cached: columns that were read before.
        inputs: token ids, or embeddings where ids are not given.
        fresh: whether sequences begin here that no earlier pass of the context has read.
        rows: of the batch, those that are looked at; None for all of them.
    """

    def __init__(self, prompt_lengths: Int[Tensor, "row"] | None, forward: Any) -> None:
        self.prompt_lengths = prompt_lengths
        self.prompt_width: int | None = None
        self.number = self.n_cached = 0
        self.fresh = True
        self.rows: Int[Tensor, "own"] | None = None
        self.inputs: Tensor
        self._attention_mask: Tensor | None = None
        self._has_cache = False
        self._steered: dict[Scope, Steered] = {}
        self._signature = inspect.signature(forward)
        self._begun = False

    def before_forward(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Note where a forward pass of the decoder stands; hooks within it ask."""
        call = self._signature.bind_partial(*args, **kwargs).arguments
        ids, mask = call.get("input_ids"), call.get("attention_mask")
        self.inputs = self.own(call["inputs_embeds"] if ids is None else ids)
        self._attention_mask = None if mask is None else self.own(mask)
        cache = call.get("past_key_values")
        self.n_cached = 0 if cache is None else int(cache.get_seq_length())
        self._has_cache = cache is not None
        self._steered, self.number = {}, self.number + 1
        # Without a cache, generate reads the same sequences from their start at each step.
        self.fresh = not self.n_cached and not self._begun
        self._begun = self.prompt_width is not None

    def own(self, values: Tensor) -> Tensor:
        """Return the rows that are looked at, of what has one entry for each row of the batch."""
        return values if self.rows is None else values[self.rows.to(values.device)]

    @contextmanager
    def generating(self, prompt_width: int, begun: bool = False) -> Iterator[None]:
        """Take the width of the prompts while ``generate`` runs.

        Args:
            prompt_width: columns of the prompts; 0 where only what follows them is read.
            begun: whether the same sequences were read before, and are now read anew.
        """
        outer, self.prompt_width, self._begun = self.prompt_width, prompt_width, begun
        try:
            yield
        finally:
            self.prompt_width, self._begun = outer, False

    @property
    def columns(self) -> Int[Tensor, "position"]:
        """The columns of the present pass."""
        end = self.n_cached + self.inputs.shape[1]
        return torch.arange(self.n_cached, end, device=self.inputs.device)

    def steered(self, scope: Scope) -> Steered:
        """Return which positions of the present pass a scope means.

        Raises:
            UserInputError: scope ``generated`` without a way to know where the prompt ends, or
                lengths of prompts for another number of rows.
        """
        if scope not in self._steered:
            self._steered[scope] = self._find(scope)
        return self._steered[scope]

    def in_prompt(self, lengths: Int[Tensor, "row"] | None) -> Bool[Tensor, "row position"]:
        """Return which positions are a token of their row's prompt.

        Lengths are given where another end of prompts than the scopes' is meant.
        """
        end = self.prompt_end() if lengths is None else lengths.to(self.inputs.device)
        ends = torch.as_tensor(end, device=self.inputs.device).expand(len(self.inputs))
        within = (self.columns >= self._starts()[:, None]) & (self.columns < ends[:, None])
        return within & self._real()

    def prompt_end(self) -> int | Int[Tensor, "row"]:
        """Return the first column after the prompt; the row is all prompt where nothing tells."""
        if self.prompt_width is not None:
            return self.prompt_width
        if self.prompt_lengths is not None:
            self._check_rows(self.inputs)
            return self.prompt_lengths.to(self.inputs.device)
        return self.n_cached or _last_column(self.inputs, self._attention_mask) + 1

    def _find(self, scope: Scope) -> Steered:
        if scope == "all":
            return True
        if isinstance(scope, PromptEnds):
            from_start = self.columns - self._starts()[:, None]
            end = torch.as_tensor(self.prompt_end(), device=self.inputs.device)
            to_end = end.expand(len(self.inputs))[:, None] - self.columns
            near = (from_start < scope.first) | (to_end <= scope.last)
            return near & (from_start >= 0) & (to_end > 0)
        told = self.prompt_width is not None or self.prompt_lengths is not None
        if scope == "generated" and not told and not self.n_cached:
            if not self._has_cache:
                raise UserInputError(
                    "token scope 'generated' needs to know where the prompt ends: call "
                    "model.generate, or give applied() the prompt_lengths, or pass a cache as "
                    "past_key_values (empty with the prompt, filled with what follows)"
                )
            return False
        first = self.prompt_end() - int(scope == "last" and (told or not self.n_cached))
        if isinstance(first, Tensor):
            return self.columns[None, :] >= first[:, None]
        if self.n_cached >= first:
            return True
        return self.n_cached + self.inputs.shape[1] > first and (self.columns >= first)[None, :]

    def _starts(self) -> Int[Tensor, "row"]:
        """Return each row's first column that is not padding."""
        mask = self._attention_mask
        if mask is None or mask.dim() != 2:
            return torch.zeros(len(self.inputs), dtype=torch.long, device=self.inputs.device)
        return (mask != 0).int().argmax(dim=1)

    def _real(self) -> Bool[Tensor, "#row position"]:
        mask = self._attention_mask
        if mask is None or mask.dim() != 2:
            return torch.ones_like(self.columns, dtype=torch.bool)[None, :]
        return mask[:, self.n_cached :] != 0

    def _check_rows(self, inputs: Tensor) -> None:
        assert self.prompt_lengths is not None
        if len(self.prompt_lengths) != inputs.shape[0]:
            raise UserInputError(
                f"{len(self.prompt_lengths)} prompt_lengths for a batch of {inputs.shape[0]} rows; "
                "give one per row"
            )


@contextmanager
def generate_tells_prompt_width(
    model: PreTrainedModel, positions: Positions, everywhere: bool
) -> Iterator[None]:
    """Let the instance's ``generate`` tell positions the width of its prompts while it runs.

    Where all positions are steered alike (``everywhere``), padding does not matter.
    """
    generate: Any = model.generate

    def steered_generate(inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        prompt = _prompt_of(inputs, kwargs)
        if not everywhere:
            _check_left_padding(kwargs.get("attention_mask"))
        with positions.generating(prompt):
            return generate(inputs, *args, **kwargs)

    with replaced(model, "generate", steered_generate):
        yield


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
