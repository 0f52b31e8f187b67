"""Greedy generation of answers in batches, cut at the first stop string."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache

from real_tasks.batching import PaddedBatch, check_lengths, encode, pack, pad
from real_tasks.interventions import Intervention, applied
from real_tasks.models import LoadedModel
from real_tasks.types import BehaviourData


def generate_answers(
    loaded: LoadedModel,
    data: BehaviourData,
    questions: Sequence[int],
    intervention: Intervention | None,
    max_new_tokens: int,
    batch_tokens: int,
) -> list[str]:
    """Return a greedily generated answer to each question, without what follows a stop string.

    Always the likeliest token, whatever the checkpoint's own generation settings; of equally likely
    ones the first. A batch ends as soon as each of its rows has met a stop string or an
    end-of-sequence token.

    Args:
        loaded: the model.
        data: the behaviour; its template makes the prompts, its ``stop`` ends the answers.
        questions: indices into ``data.questions``.
        intervention: None for the unsteered model.
        max_new_tokens: length limit of an answer.
        batch_tokens: most tokens of a batch, padding and new tokens included.

    Raises:
        UserInputError: prompts that leave less than ``max_new_tokens`` of the model's positions.
    """
    prompts = [data.context(data.questions[i]) for i in questions]
    ids = encode(loaded, prompts)
    lengths = [len(row) for row in ids]
    check_lengths(loaded, lengths, prompts, max_new_tokens)
    answers = [""] * len(prompts)
    for indices in pack([n + max_new_tokens for n in lengths], batch_tokens):
        batch = pad(loaded, [ids[i] for i in indices], "left")
        rows = _generate(loaded, batch, intervention, max_new_tokens, data.stop)
        for index, new in zip(indices, rows, strict=True):
            answers[index] = _cut(_decode(loaded, [new])[0], data.stop)
    return answers


@torch.inference_mode()
def _generate(
    loaded: LoadedModel,
    batch: PaddedBatch,
    intervention: Intervention | None,
    max_new_tokens: int,
    stop: Sequence[str],
) -> list[list[int]]:
    """Return each row's new tokens up to, and without, its first end-of-sequence token."""
    ends = _end_tokens(loaded)
    # A stop string of n bytes spans at most n tokens; two more for blanks that decoding drops.
    tail = 2 + max((len(s.encode()) for s in stop), default=0)
    new: list[list[int]] = [[] for _ in range(len(batch.input_ids))]
    done = [False] * len(new)
    with applied(loaded, intervention):
        for tokens in _greedy_steps(loaded, batch, max_new_tokens):
            for row, token in enumerate(tokens):
                done[row] = done[row] or token in ends
                if not done[row]:
                    new[row].append(token)
            going = [row for row, finished in enumerate(done) if not finished]
            tails = _decode(loaded, [new[row][-tail:] for row in going]) if stop else []
            for row, text in zip(going, tails, strict=False):
                done[row] = any(s in text for s in stop)
            if all(done):
                break
    return new


def _greedy_steps(
    loaded: LoadedModel, batch: PaddedBatch, max_new_tokens: int
) -> Iterator[list[int]]:
    """Yield the likeliest next token of every row, step by step, with a key-value cache."""
    cache = DynamicCache(config=loaded.model.config)
    mask: Bool[Tensor, "row position"] = batch.mask
    inputs: Int[Tensor, "row position"] = batch.input_ids
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for _ in range(max_new_tokens):
        hidden = loaded.decoder(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        chosen = loaded.lm_head(hidden).argmax(-1)
        yield cast(list[int], chosen.tolist())
        inputs, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)


def _end_tokens(loaded: LoadedModel) -> set[int]:
    configured: Any = getattr(loaded.model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {int(t) for t in (*listed, loaded.tokenizer.eos_token_id) if t is not None}


def _decode(loaded: LoadedModel, rows: list[list[int]]) -> list[str]:
    # Cleaning up would change blanks before punctuation, which answers are compared with.
    return loaded.tokenizer.batch_decode(
        rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def _cut(text: str, stop: Sequence[str]) -> str:
    found = [place for place in (text.find(s) for s in stop) if place >= 0]
    return text[: min(found, default=len(text))].strip()
