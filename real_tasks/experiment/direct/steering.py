"""A model in memory with a way of steering it: on within a ``with``, compared, saved, loaded."""

import html
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from real_tasks.evaluation.answers.greedy import continuations
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.reading.asking import PROMPT, Asking
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import UserInputError

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""


@dataclass(frozen=True)
class Comparison:
    """Answers to prompts before and after steering."""

    prompts: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]

    def __str__(self) -> str:
        """Return them one above the other."""
        rows = zip(self.prompts, self.before, self.after, strict=True)
        return "\n\n".join(f"{p}\n  before: {b}\n  after:  {a}" for p, b, a in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = zip(self.prompts, self.before, self.after, strict=True)
        style = ' style="text-align: left; white-space: pre-wrap"'
        return html_table(("prompt", "before", "after"), rows, style)


def html_table(head: Iterable[str], rows: Iterable[Iterable[str]], style: str = "") -> str:
    """Return a table for notebooks; the cells are plain text."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table{style}><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


@dataclass(repr=False)
class Steering:
    """A model and how it is steered: within ``with`` it is; not for several threads.

    Attributes:
        model: the user's own model object; it is changed only within ``with``.
        tokenizer: its tokenizer; only `compare` asks for one.
        spec: what is done to it.
        asking: how `compare` puts prompts.
        force: whether another model than the spec's of the same shape is steered all the same.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    spec: SteeringSpec
    asking: Asking
    force: bool = False
    _entered: list[ExitStack] = field(default_factory=list, init=False, repr=False)

    def __enter__(self) -> "Steering":
        """Steer the model until the end of the ``with``."""
        stack = ExitStack()
        stack.enter_context(self.spec.applied_to(self.model, force=self.force))
        self._entered.append(stack)
        return self

    def __exit__(self, *raised: Any) -> None:
        """Give the model back as it was."""
        self._entered.pop().close()

    def at(self, strength: float) -> "Steering":
        """Return the same at another strength, as a multiple of that which was tuned."""
        number = isinstance(strength, int | float) and not isinstance(strength, bool)
        if not number or not math.isfinite(strength):
            raise UserInputError(f"strength {strength!r}, expected a number; 1 is as tuned")
        spec = self.spec.with_alpha(self.spec.alpha * strength)
        # Not `replace`: what was found of the tuned strength does not hold for another one.
        return Steering(self.model, self.tokenizer, spec, self.asking, self.force)

    def compare(self, prompts: str | Sequence[str], max_new_tokens: int = 50) -> Comparison:
        """Return greedy answers without steering and with it, of at most ``max_new_tokens``.

        Prompts are put as the questions were with which the steering was tuned.
        """
        if max_new_tokens < 1:
            raise UserInputError(f"max_new_tokens {max_new_tokens}, expected 1 or more")
        asked = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        return self._compared(
            asked, lambda loaded: [self.asking.text(loaded, one) for one in asked], max_new_tokens
        )

    def _compared(
        self,
        asked: tuple[str, ...],
        texts_of: Callable[[LoadedModel], Sequence[str]],
        max_new_tokens: int,
    ) -> Comparison:
        """Compare what the model says to prompts whose texts it makes itself."""
        if self.tokenizer is None:
            raise UserInputError("compare writes answers, which needs the tokenizer: hand it over")
        with borrowed(self.model, self.tokenizer) as loaded:
            loaded = replace(loaded, chat=self.asking.chat)
            texts = texts_of(loaded)
            before, after = (
                continuations(
                    loaded, texts, one, max_new_tokens, BATCH_TOKENS, self.asking.stop, False
                )
                for one in (None, self.spec.intervention())
            )
        return Comparison(asked, tuple(before), tuple(after))

    def save(self, folder: str | Path) -> None:
        """Write the spec into a folder; `load` reads it, and `real chat` and `real serve` do."""
        self.spec.save(folder)

    def __str__(self) -> str:
        """Return in plain words what is done."""
        return self.spec.explain()

    def __repr__(self) -> str:
        """Return the same: what it consists of would fill screens."""
        return str(self)


def load(
    folder: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    force: bool = False,
) -> Steering:
    """Return a steering that was saved, for the model that it was made for.

    Args:
        folder: what `Steering.save`, or an experiment, wrote; or a repository of the Hub.
        model: in memory.
        tokenizer: of the model; only `Steering.compare` asks for it.
        force: steer another model of the same shape all the same.

    Raises:
        UserInputError: no spec, or one for another model.
    """
    spec = SteeringSpec.from_pretrained(folder)
    spec.check_model(model, force=force)
    asking = Asking.from_facts(spec.provenance.get(PROMPT, {}))
    return Steering(model, tokenizer, spec, asking, force)


@contextmanager
def borrowed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[LoadedModel]:
    """Have a model ready to be read, where it lies, and give it back as it was.

    Its device stays; training mode and gradients are off meanwhile.
    """
    training = [one for one in model.modules() if one.training]
    asked = [one for one in model.parameters() if one.requires_grad]
    try:
        yield prepare(model, tokenizer, str(model.device))
    finally:
        for module in training:
            module.training = True
        for one in asked:
            one.requires_grad_(True)
