"""The engine: a thread that owns a model and reads its batch, step after step.

transformers' own continuous batching packs all requests into one row, tells hooks nothing of whose
tokens are where, has one seed for all, and no likeliest tokens; so that edits, seeds and
log-probabilities of each request would be lost in it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.evaluation.answers.greedy import end_tokens
from real_tasks.models.loading import LoadedModel
from real_tasks.models.rope import length_rules
from real_tasks.reading.overflow import check_finite
from real_tasks.serving.batch import Batch
from real_tasks.serving.choosing import draw, is_greedy, score
from real_tasks.serving.generations import Generation
from real_tasks.serving.rows import Row
from real_tasks.serving.texts import token_bytes
from real_tasks.vocabulary.errors import UserInputError, WorkFailedError

log = logging.getLogger(__name__)

PROMPT_TOKENS = 8192
"""Most tokens, padding included, of prompts that are read at once between two steps."""


ANSWER_TOKENS = 1024
"""New tokens of an answer where nobody says: one that never ends would take its row for hours."""


class QueueFullError(RuntimeError):
    """So many generations wait that another one is not taken."""


class PositionsError(UserInputError):
    """A text that is longer than the model's positions."""


@dataclass(frozen=True)
class Step:
    """What a pass of the model was: its rows, each of which gets a token; prompts read; seconds."""

    rows: int
    prompt_tokens: int
    seconds: float


class Engine:
    """Continues texts, many at once, each as if it were alone but for rounding.

    Args:
        loaded: the model, which is the engine's alone from now on.
        max_rows: most texts at once; 1 for a model whose frequencies follow the length of a text.
        max_waiting: most texts that wait.
        on_step: is told of every pass.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        max_rows: int = 32,
        max_waiting: int = 256,
        on_step: Callable[[Step], None] = lambda _: None,
    ) -> None:
        self.loaded = loaded
        self.max_rows = 1 if length_rules(loaded.model.config) else max_rows
        self.max_waiting = max_waiting
        self._on_step = on_step
        self._ends = end_tokens(loaded)
        self._bytes_of = token_bytes(loaded.tokenizer)
        self._batch = Batch(loaded)
        self._waiting: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def n_waiting(self) -> int:
        """How many generations wait."""
        return len(self._waiting)

    @property
    def n_rows(self) -> int:
        """How many are under way."""
        return len(self._batch.rows)

    @contextmanager
    def running(self) -> Iterator["Engine"]:
        """Run the engine's thread within the context; what is not done at its end is dropped."""
        self._thread.start()
        try:
            yield self
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify()
            self._thread.join()

    def check(self, prompt: Sequence[int], max_tokens: int) -> None:
        """Check that a text fits the model's positions.

        Raises:
            PositionsError: it does not, with the counts.
        """
        limit = self.loaded.max_positions
        if limit is not None and len(prompt) + max_tokens > limit:
            raise PositionsError(
                f"the model has {limit} positions; the prompt takes {len(prompt)} and max_tokens "
                f"{max_tokens}, which is {len(prompt) + max_tokens}: shorten the prompt, or ask "
                "for fewer tokens"
            )

    def submit(self, generations: Sequence[Generation]) -> None:
        """Have texts continued, all or none; their pieces go to their ``emit``.

        Raises:
            QueueFullError: more than `max_waiting` would wait.
            WorkFailedError: the engine has stopped.
        """
        with self._changed:
            if self._closed:
                raise WorkFailedError("the engine has stopped; start the server again")
            if len(self._waiting) + len(generations) > self.max_waiting:
                self._waiting = deque(one for one in self._waiting if not one.cancelled)
            if len(self._waiting) + len(generations) > self.max_waiting:
                raise QueueFullError(
                    f"{len(self._waiting)} texts wait, and {self.max_waiting} may; try again later"
                )
            self._waiting.extend(generations)
            self._changed.notify()

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._batch.rows or self._closed)
                if self._closed:
                    break
                arrived = self._admitted()
            try:
                self._drop_cancelled()
                if arrived:
                    self._join(arrived)
                elif self._batch.rows:
                    self._step()
            except Exception as error:  # the thread lives on for the next texts
                log.exception("a pass failed, and with it %d texts", self.n_rows)
                self._fail((*self._batch.rows, *arrived), error)
        stopped = WorkFailedError("the engine stops")
        self._fail((*self._batch.rows, *self._as_rows(self._waiting)), stopped)

    def _fail(self, rows: Sequence[Row], error: Exception) -> None:
        for row in rows:
            row.fail(error)
        self._batch.clear()

    def _admitted(self) -> list[Row]:
        """Take from the queue what there is room for, in its order."""
        taken: list[Generation] = []
        longest = 0
        while self._waiting and len(taken) + self.n_rows < self.max_rows:
            longest = max(longest, len(self._waiting[0].prompt))
            if taken and longest * (len(taken) + 1) > PROMPT_TOKENS:
                break
            generation = self._waiting.popleft()
            if not generation.cancelled:
                taken.append(generation)
        return self._as_rows(taken)

    def _as_rows(self, generations: Sequence[Generation] | deque[Generation]) -> list[Row]:
        return [Row(one, self.loaded.tokenizer) for one in generations]

    def _drop_cancelled(self) -> None:
        for row in self._batch.rows:
            row.ended |= row.generation.cancelled
        self._batch.drop_ended()

    def _join(self, rows: list[Row]) -> None:
        """Read the prompts of rows; where that fails for some, read each alone."""
        try:
            tokens = sum(len(row.tokens) for row in rows)
            with self._told(len(rows), tokens):
                logits = self._batch.join(rows)
        except Exception as error:
            if len(rows) > 1:
                for row in rows:
                    self._join([row])
                return
            log.warning("a prompt could not be read: %s", error)
            rows[0].fail(error)
            self._batch.resume()
        else:
            self._choose(rows, logits)

    def _step(self) -> None:
        rows = self._batch.rows
        with self._told(len(rows), 0):
            logits = self._batch.step()
        self._choose(rows, logits)

    def _choose(self, rows: Sequence[Row], logits: Float[Tensor, "row vocab"]) -> None:
        """Choose each row's next token; a row whose logits are no numbers ends alone."""
        largest, likeliest = logits.max(-1)
        finite = largest.isfinite().tolist()
        for n, (row, best) in enumerate(zip(rows, likeliest.tolist(), strict=True)):
            asked = row.generation.sampling
            if not finite[n]:
                row.fail(self._overflow(row))
                continue
            token = best if is_greedy(asked) else draw(logits[n], asked, row.generator)
            told = None
            if asked.alternatives is not None:
                told = score(logits[n], token, asked.alternatives, self._bytes_of)
            row.take(token, token in self._ends, told)
        self._batch.drop_ended()

    def _overflow(self, row: Row) -> Exception:
        try:
            steered = row.generation.steering is not None
            check_finite(self.loaded, torch.tensor(torch.nan), "logits", steered)
        except UserInputError as error:
            return error
        raise AssertionError("NaN is not finite")

    @contextmanager
    def _told(self, rows: int, prompt_tokens: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._on_step(Step(rows, prompt_tokens, time.perf_counter() - began))


def room(loaded: LoadedModel, n_prompt: int) -> int:
    """Return how many tokens an answer may have where nobody says."""
    limit = loaded.max_positions
    return ANSWER_TOKENS if limit is None else max(min(limit - n_prompt, ANSWER_TOKENS), 1)
