"""What is asked of the engine, and what it gives back piece by piece."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from real_tasks.steering.hooks import Steering

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and when to stop.

    Attributes:
        max_tokens: most new tokens.
        temperature: by which logits are divided; at 0 the likeliest token is taken, of equally
            likely ones the first.
        top_p: share of the probability that the likeliest tokens, of which one is drawn, have.
        seed: of the draws; a generation has a generator of its own.
        stop: strings that end the text, and are no part of it.
        alternatives: how many of the likeliest tokens are told beside the chosen one; None: no
            log-probabilities at all. They are the model's own, whatever temperature and ``top_p``.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    alternatives: int | None = None


@dataclass(frozen=True)
class Score:
    """A new token, the bytes that it stands for, and its log-probability with the likeliest ones.

    Attributes:
        offset: characters of the text before it.
    """

    token: bytes
    log_prob: float
    likeliest: tuple[tuple[bytes, float], ...]
    offset: int = 0


@dataclass(frozen=True)
class Piece:
    """What a decoding step has added to a text.

    Attributes:
        text: never a part of a character, nor what may become a stop string.
        scores: of the tokens since the last piece, where they were asked for.
        n_tokens: new tokens so far.
        finish: why the text ends here; None where it goes on.
        error: why it cannot go on.
    """

    text: str = ""
    scores: tuple[Score, ...] = ()
    n_tokens: int = 0
    finish: Finish | None = None
    error: Exception | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.error is not None


class Generation:
    """A text to be continued.

    Attributes:
        prompt: token ids.
        steering: None for the bare model.
        emit: gets every piece, in the engine's thread; it must not wait.
        cancelled: whether nobody wants it any more.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        steering: Steering | None,
        emit: Callable[[Piece], None],
    ) -> None:
        """Keep what is asked; nothing runs before `Engine.submit`."""
        self.prompt = tuple(prompt)
        self.sampling = sampling
        self.steering = steering
        self.emit = emit
        self.cancelled = False

    def cancel(self) -> None:
        """Have it leave the queue or the batch before the next step; no piece follows."""
        self.cancelled = True
