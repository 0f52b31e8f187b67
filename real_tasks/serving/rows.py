"""A row of the engine's batch: a generation under way, and what it has said so far."""

from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from real_tasks.serving.generations import Finish, Generation, Piece, Score
from real_tasks.serving.texts import GrowingText, UpToStop


class Row:
    """A generation with its own text, its own generator, and what gates decided on its prompt.

    Attributes:
        tokens: prompt and new tokens.
        gates: of each gate what it decided on the prompt, ``[1]``; None of one that decides anew.
        ended: whether nothing is to follow.
    """

    def __init__(self, generation: Generation, tokenizer: PreTrainedTokenizerBase) -> None:
        self.generation = generation
        self.tokens = list(generation.prompt)
        self.gates: list[Tensor | None] = []
        self.ended = False
        self.generator = torch.Generator().manual_seed(generation.sampling.seed)
        self._text = GrowingText(tokenizer)
        self._shown = UpToStop(generation.sampling.stop)
        self._n_shown = self._n_said = 0
        self._scores: list[Score] = []

    @property
    def n_new(self) -> int:
        """How many tokens are new."""
        return len(self.tokens) - len(self.generation.prompt)

    def take(self, token: int, is_end: bool, score: Score | None) -> None:
        """Take the next token, and emit what it adds to the text."""
        self.tokens.append(token)
        text, stopped = "", is_end
        if not is_end:
            if score is not None:
                self._scores.append(replace(score, offset=self._n_said))
            said = self._text.push(token)
            self._n_said += len(said)
            text, stopped = self._shown.push(said)
        finish: Finish | None = "stop" if stopped else None
        if not stopped and self.n_new >= self.generation.sampling.max_tokens:
            finish = "length"
        if finish is not None and (is_end or not stopped):
            text += self._rest()
        self._emit(text, finish, cut=stopped and not is_end)

    def fail(self, error: Exception) -> None:
        """End with an error, unless it has ended."""
        if not self.ended:
            self.ended = True
            self.generation.emit(Piece(n_tokens=self.n_new, error=error))

    def _rest(self) -> str:
        """Return what waited for more; a stop string may be found in it yet."""
        text, stopped = self._shown.push(self._text.end())
        return text if stopped else text + self._shown.end()

    def _emit(self, text: str, finish: Finish | None, cut: bool) -> None:
        self.ended = finish is not None
        self._n_shown += len(text)
        if not text and finish is None:
            return
        # Tokens of which a stop string leaves nothing belong to it.
        told = [one for one in self._scores if one.offset < self._n_shown or not cut]
        self._scores = []
        self.generation.emit(Piece(text, tuple(told), self.n_new, finish))
