"""From what a client asks to generations: prompts, sampling, steering."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from real_tasks.models.chat import ChatFormat, conversation
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.batches import encode
from real_tasks.serving.catalogue import Catalogue
from real_tasks.serving.engine import Engine, room
from real_tasks.serving.generations import Generation, Piece, Sampling
from real_tasks.serving.http.asked import Asked, ChatAsked, CompletionAsked
from real_tasks.steering.hooks import Steering
from real_tasks.vocabulary.errors import UserInputError

OPENAI_S_TOKENS = 16
"""New tokens of a completion that says nothing of them, as OpenAI's."""
SEEDS = 2**63


@dataclass(frozen=True)
class Wanted:
    """The texts that a request wants: for each prompt ``n``, one after another."""

    prompts: Sequence[Sequence[int]]
    n: int
    sampling: Sampling
    steering: Steering | None

    @property
    def n_texts(self) -> int:
        """How many texts there will be."""
        return len(self.prompts) * self.n

    def generations(self, emit: Callable[[int, Piece], None]) -> list[Generation]:
        """Return a generation for each text; each has a seed of its own."""
        first = self.sampling.seed
        return [
            Generation(
                self.prompts[index // self.n],
                replace(self.sampling, seed=(first + index % self.n) % SEEDS),
                self.steering,
                lambda piece, index=index: emit(index, piece),  # type: ignore[misc]
            )
            for index in range(self.n_texts)
        ]


def completion_wanted(engine: Engine, catalogue: Catalogue, asked: CompletionAsked) -> Wanted:
    """Return what a completion wants.

    Raises:
        UserInputError: what cannot be done, with the reason.
    """
    prompts = _prompts(engine.loaded, asked)
    limit = asked.max_tokens or OPENAI_S_TOKENS
    return _wanted(engine, catalogue, asked, prompts, limit, asked.logprobs)


def chat_wanted(engine: Engine, catalogue: Catalogue, asked: ChatAsked) -> Wanted:
    """Return what a chat wants; see `completion_wanted`."""
    if asked.top_logprobs is not None and not asked.logprobs:
        raise UserInputError("top_logprobs without logprobs; set logprobs to true")
    tokenizer = engine.loaded.tokenizer
    check_template(tokenizer)
    chat = ChatFormat(arguments=asked.chat_template_kwargs)
    messages = [message.plain() for message in asked.messages]
    prompt = encode(engine.loaded, [conversation(tokenizer, chat, messages)])
    limit = asked.max_completion_tokens or asked.max_tokens
    if limit is None:
        limit = room(engine.loaded, len(prompt[0]))
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    return _wanted(engine, catalogue, asked, prompt, limit, top)


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that there is a chat template.

    Raises:
        UserInputError: there is none.
    """
    if not tokenizer.chat_template:
        raise UserInputError(
            "the model has no chat template (a base model?); use /v1/completions, or put a "
            "chat_template.jinja into the checkpoint's folder"
        )


def _wanted(
    engine: Engine,
    catalogue: Catalogue,
    asked: Asked,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    alternatives: int | None,
) -> Wanted:
    parts = tuple((part.spec, part.strength) for part in asked.steering or ())
    mixture = catalogue.mixture(asked.model, parts)
    for prompt in prompts:
        engine.check(prompt, max_tokens)
    n_texts = len(prompts) * (asked.n or 1)
    if n_texts > engine.max_waiting:
        raise UserInputError(
            f"{n_texts} texts in one request, and {engine.max_waiting} may wait; send several"
        )
    sampling = Sampling(
        max_tokens,
        1.0 if asked.temperature is None else asked.temperature,
        1.0 if asked.top_p is None else asked.top_p,
        secrets.randbelow(SEEDS) if asked.seed is None else asked.seed % SEEDS,
        asked.stops,
        alternatives,
    )
    return Wanted(prompts, asked.n or 1, sampling, catalogue.steering(mixture))


def _prompts(loaded: LoadedModel, asked: CompletionAsked) -> list[list[int]]:
    given = asked.prompt
    if isinstance(given, str):
        return encode(loaded, [given])
    texts = [one for one in given if isinstance(one, str)]
    if texts:
        return encode(loaded, texts)
    rows = [one for one in given if isinstance(one, list)]
    if not rows:
        rows = [[one for one in given if isinstance(one, int)]]
    if not all(rows):
        raise UserInputError(
            "prompt: a list without tokens; give text, token ids, or lists of them"
        )
    beyond = [token for row in rows for token in row if token >= loaded.n_tokens]
    if beyond:
        raise UserInputError(
            f"prompt: the token {beyond[0]}, but the model has {loaded.n_tokens} tokens; ids are "
            "those of the model's own tokenizer"
        )
    return rows
