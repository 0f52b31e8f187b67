"""Generation of answers in batches, greedy or drawn, cut at the first stop string."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache

from real_tasks.evaluation.answers.prefix import common_prefix, growing_cache, read_prefix
from real_tasks.models.loading import LoadedModel
from real_tasks.models.rope import Regime
from real_tasks.models.thinking import without_thinking
from real_tasks.reading.batches import PaddedBatch, check_lengths, encode, pad
from real_tasks.reading.out_of_memory import in_batches
from real_tasks.reading.overflow import check_finite
from real_tasks.reading.prompts import prompt_text
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.types import BehaviourData

NO_TOKEN = -1


def generate_answers(
    loaded: LoadedModel,
    data: BehaviourData,
    questions: Sequence[int],
    intervention: Intervention | None,
    max_new_tokens: int,
    batch_tokens: int,
    share_prefix: bool = True,
) -> list[str]:
    """Return a greedily generated answer to each question, without what follows a stop string.

    Always the likeliest token, whatever the checkpoint's own generation settings; of equally likely
    ones the first. A batch ends as soon as each of its rows has met a stop string or an
    end-of-sequence token. The behaviour's template makes the prompts, its ``stop`` ends the
    answers; see `continuations` for the rest.

    In a chat, thinking that an answer begins with is left out, and no stop string ends it; what
    does not end within ``max_new_tokens`` leaves an empty answer.

    Raises:
        UserInputError: prompts that leave less than ``max_new_tokens`` of the model's positions.
        OverflowedError: steering is so strong that logits are no numbers.
    """
    prompts = [prompt_text(loaded, data, data.questions[i]) for i in questions]
    return continuations(
        loaded, prompts, intervention, max_new_tokens, batch_tokens, data.stop, share_prefix
    )


def continuations(
    loaded: LoadedModel,
    prompts: Sequence[str],
    intervention: Intervention | None,
    max_new_tokens: int,
    batch_tokens: int,
    stop: Sequence[str],
    share_prefix: bool = True,
    seed: int | None = None,
) -> list[str]:
    """Return what the model goes on with after each prompt; see `generate_answers`.

    A batch has at most ``batch_tokens``, padding and new tokens included. A long common beginning
    of all prompts is read only once, where ``share_prefix`` says so. With a seed tokens are drawn
    at temperature 1, each prompt's by numbers of its own; without, they are the likeliest.
    """
    ids = encode(loaded, prompts)
    lengths = [len(row) for row in ids]
    check_lengths(loaded, lengths, prompts, max_new_tokens)
    answers = [""] * len(prompts)
    longest = max(lengths, default=0) + max_new_tokens
    share_prefix &= intervention is None or intervention.shares_prompts
    n_prefix = common_prefix(loaded, ids, longest) if share_prefix else 0
    prefix = read_prefix(loaded, ids[0][:n_prefix] if n_prefix else (), intervention)

    def run(indices: list[int]) -> None:
        batch = pad(loaded, [ids[i][n_prefix:] for i in indices], "left")
        draws = [] if seed is None else [_generator(seed, i) for i in indices]
        rows = _generate(loaded, batch, prefix, intervention, max_new_tokens, stop, draws)
        for index, new in zip(indices, rows, strict=True):
            answers[index] = _cut(_said(loaded, new), stop)

    regimes = [_regime(loaded, n, n + max_new_tokens - 1) for n in lengths]
    widths = [n + max_new_tokens for n in lengths]
    in_batches(loaded, "generation", widths, batch_tokens, run, regimes)
    return answers


def _generator(seed: int, prompt: int) -> torch.Generator:
    (drawn,) = np.random.SeedSequence([seed, prompt]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(drawn >> np.uint64(1)))


def _drawn(
    logits: Float[Tensor, "row vocab"], draws: Sequence[torch.Generator]
) -> Int[Tensor, "row"]:
    """Return a token for each row, drawn by the row's own generator."""
    n_vocab = logits.shape[-1]
    noise = torch.stack([torch.rand(n_vocab, generator=draw).log().neg().log() for draw in draws])
    # The largest sum with Gumbel noise is a draw from the softmax.
    return (logits.float() - noise.to(logits.device)).argmax(-1)


def _regime(loaded: LoadedModel, first: int, last: int) -> Regime:
    """Texts whose frequencies change while they grow do so together: they are equally long."""
    changes = loaded.regime(first) != loaded.regime(last)
    return (*loaded.regime(first), first) if changes else loaded.regime(first)


@torch.inference_mode()
def _generate(
    loaded: LoadedModel,
    batch: PaddedBatch,
    prefix: Cache | None,
    intervention: Intervention | None,
    max_new_tokens: int,
    stop: Sequence[str],
    draws: Sequence[torch.Generator],
) -> list[list[int]]:
    """Return each row's new tokens up to, and without, its first end-of-sequence token."""
    ends = end_tokens(loaded)
    # A stop string of n bytes spans at most n tokens; two more for blanks that decoding drops.
    tail = 2 + max((len(s.encode()) for s in stop), default=0)
    new: list[list[int]] = [[] for _ in range(len(batch.input_ids))]
    done = [False] * len(new)
    n_rows, width = batch.input_ids.shape
    n_prefix = 0 if prefix is None else prefix.get_seq_length()
    ends_of_prompts = torch.full((n_rows,), n_prefix + width, device=loaded.device)
    with applied(loaded, intervention, ends_of_prompts):
        for tokens in steps(loaded, batch, prefix, max_new_tokens, draws):
            if any(token == NO_TOKEN for row, token in enumerate(tokens) if not done[row]):
                check_finite(loaded, torch.tensor(torch.nan), "logits", intervention is not None)
            for row, token in enumerate(tokens):
                done[row] = done[row] or token in ends
                if not done[row]:
                    new[row].append(token)
            going = [row for row, finished in enumerate(done) if not finished]
            tails = _decode(loaded, [new[row][-tail:] for row in going]) if stop else []
            for row, text in zip(going, tails, strict=False):
                done[row] = any(s in text for s in stop) and _stops(loaded, new[row], stop)
            if all(done):
                break
    return new


def steps(
    loaded: LoadedModel,
    batch: PaddedBatch,
    prefix: Cache | None,
    max_new_tokens: int,
    draws: Sequence[torch.Generator],
) -> Iterator[list[int]]:
    """Yield the next token of every row, step by step, with a key-value cache.

    `NO_TOKEN` where the logits are no numbers.
    """
    n_rows = len(batch.mask)
    cache = growing_cache(loaded, prefix, n_rows)
    before = batch.mask.new_ones(n_rows, cache.get_seq_length())
    mask: Bool[Tensor, "row position"] = torch.cat([before, batch.mask], dim=1)
    inputs: Int[Tensor, "row position"] = batch.input_ids
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
    # Rows that are read anew are equally long, and have no prefix.
    so_far = inputs
    for _ in range(max_new_tokens):
        hidden = loaded.hidden_states(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )[:, -1]
        logits = loaded.logits(hidden)
        largest, chosen = logits.max(-1)
        chosen = _drawn(logits, draws) if draws else chosen
        yield cast(list[int], chosen.masked_fill(~largest.isfinite(), NO_TOKEN).tolist())
        inputs, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        so_far = torch.cat([so_far, inputs], dim=1)
        n_tokens = mask.shape[1]
        if loaded.family.rereads and loaded.regime(n_tokens) != loaded.regime(n_tokens - 1):
            cache, inputs = growing_cache(loaded, None, n_rows), so_far
            positions = mask.cumsum(1) - 1


def end_tokens(loaded: LoadedModel) -> set[int]:
    """Return the tokens that end a text, by the tokenizer and the model's generation settings."""
    configured: Any = getattr(loaded.model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {int(t) for t in (*listed, loaded.tokenizer.eos_token_id) if t is not None}


def _decode(loaded: LoadedModel, rows: list[list[int]]) -> list[str]:
    # Cleaning up would change blanks before punctuation, which answers are compared with.
    return loaded.tokenizer.batch_decode(
        rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def _said(loaded: LoadedModel, new: list[int]) -> str:
    """Return the answer in a row's new tokens; blanks between thinking and it are none of it."""
    kept = _after_thinking(loaded, new)
    (text,) = _decode(loaded, [kept])
    return text if len(kept) == len(new) else text.lstrip()


def _stops(loaded: LoadedModel, new: list[int], stop: Sequence[str]) -> bool:
    """Say whether a stop string is in the answer: in a chat it may be in the thinking before it."""
    return loaded.chat is None or any(s in _said(loaded, new) for s in stop)


def _after_thinking(loaded: LoadedModel, new: list[int]) -> list[int]:
    """Return the tokens of the answer: in a chat they may follow thinking, or not be reached."""
    if loaded.chat is None:
        return new

    def whole(tokens: list[int]) -> str:
        return cast(str, loaded.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    text = whole(new)
    said = without_thinking(text)
    if said == text:
        return new
    n_before = len(text) - len(said or "")
    thinking = (n for n in range(1, len(new)) if len(whole(new[:n])) >= n_before)
    return new[next(thinking, len(new)) :]


def _cut(text: str, stop: Sequence[str]) -> str:
    found = [place for place in (text.find(s) for s in stop) if place >= 0]
    return text[: min(found, default=len(text))].strip()
