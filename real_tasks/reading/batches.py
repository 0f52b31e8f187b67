"""From texts to token batches: encoding, a check of lengths, bucketing, padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from real_tasks.models.chat import ChatText
from real_tasks.models.loading import LoadedModel
from real_tasks.models.rope import Regime
from real_tasks.models.text_model import ReadsTexts
from real_tasks.vocabulary.errors import UserInputError

MAX_WASTE = 0.15
"""Largest share of padding in a batch that has reached `MIN_BATCH_TOKENS`."""
MIN_BATCH_TOKENS = 1024
"""Below this size a batch costs what its calls cost, not what its tokens cost."""
BATCH_COST = 128
"""Tokens that take about as long as what a batch costs besides its tokens, on a processor."""
LAUNCH_COST = 2048
"""The same on other devices, where small work waits for its start."""
N_NAMED = 3
"""How many of the offending texts or words an error message names."""
N_NEAR = 20
"""Characters that it shows before and behind a wrong one."""


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids filled up to one length, and which of them are real; on the model's device."""

    input_ids: Int[Tensor, "row position"]
    mask: Bool[Tensor, "row position"]


def encode(loaded: ReadsTexts, texts: Sequence[str]) -> list[list[int]]:
    """Encode texts with the tokenizer's special tokens in front, but none behind.

    A special token behind the text would take the place of its last token. A `ChatText` is encoded
    as it stands, as ``apply_chat_template`` does it.

    Raises:
        UserInputError: a text without any token, with tokens that the model does not have, or with
            half a character.
    """
    plain = [text for text in texts if not isinstance(text, ChatText)]
    written = [text for text in texts if isinstance(text, ChatText)]
    n_behind = _n_special_behind(loaded) if plain else 0
    of_plain = iter([row[: len(row) - n_behind] for row in _ids(loaded, plain)])
    of_written = iter(_ids(loaded, written, add_special_tokens=False))
    ids = [next(of_written if isinstance(text, ChatText) else of_plain) for text in texts]
    empty = [text for text, row in zip(texts, ids, strict=True) if not row]
    if empty:
        raise UserInputError(
            f"{len(empty)} texts have no tokens, the first is {empty[0]!r}; remove or mend them"
        )
    n_tokens = loaded.n_tokens
    beyond = sorted({one for row in ids for one in row if one >= n_tokens})
    if beyond:
        named = loaded.tokenizer.convert_ids_to_tokens(beyond[:N_NAMED])
        shown = ", ".join(f"{word!r} ({one})" for word, one in zip(named, beyond, strict=False))
        raise UserInputError(
            f"texts hold tokens that the model has no embedding for, as it has {n_tokens}: "
            f"{shown}; the tokenizer is another model's or was extended: take the one that "
            "belongs to the model, or resize the model's embeddings"
        )
    return ids


def _ids(loaded: ReadsTexts, texts: Sequence[str], **how: bool) -> list[list[int]]:
    if not texts:
        return []
    plain = [str(text) for text in texts]
    for text in plain:
        _check_characters(text)
    # Who reads them checks their lengths; what transformers says of that is for its own models.
    return cast(list[list[int]], loaded.tokenizer(plain, verbose=False, **how)["input_ids"])


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - N_NEAR) : error.start + N_NEAR]
        raise UserInputError(
            f"a text holds {text[error.start]!r} (near {near!r}), which is no character but half "
            "of one, or a byte that is not UTF-8; remove it"
        ) from error


def _n_special_behind(loaded: ReadsTexts) -> int:
    probe = loaded.tokenizer("a", return_special_tokens_mask=True)
    flags = cast(list[int], probe["special_tokens_mask"])
    return next((i for i, special in enumerate(reversed(flags)) if not special), 0)


def check_lengths(
    loaded: ReadsTexts, lengths: Sequence[int], names: Sequence[str], new_tokens: int = 0
) -> None:
    """Check that sequences, with ``new_tokens`` to come, fit the model's positions.

    Raises:
        UserInputError: counts and names those that do not; nothing is ever cut silently.
    """
    limit = loaded.max_positions
    if limit is None:
        return
    long = [(n, name) for n, name in zip(lengths, names, strict=True) if n + new_tokens > limit]
    if not long:
        return
    shown = "; ".join(f"{name[:60]!r} ({n} tokens)" for n, name in long[:N_NAMED])
    room = f" with {new_tokens} new tokens" if new_tokens else ""
    mend = "; lower evaluation.max_new_tokens," if new_tokens else ";"
    raise UserInputError(
        f"{len(long)} of {len(lengths)} texts{room} are longer than the model's {limit} positions: "
        f"{shown}{mend} shorten them or remove them"
    )


def pack(lengths: Sequence[int], batch_tokens: int, regimes: Sequence[Regime]) -> list[list[int]]:
    """Sort sequences by length and cut them into batches.

    Args:
        lengths: of the sequences, in tokens.
        batch_tokens: most tokens of a batch, padding included; a longer sequence is a batch alone.
        regimes: of the sequences, see `LoadedModel.regime`; a batch has one.

    Returns:
        Indices into ``lengths``, batch by batch, each index once.
    """
    batches: list[list[int]] = []
    current: list[int] = []
    n_real = 0
    for index in sorted(range(len(lengths)), key=lambda i: (regimes[i], lengths[i], i)):
        padded = lengths[index] * (len(current) + 1)
        wasted = padded - n_real - lengths[index]
        wasteful = n_real >= MIN_BATCH_TOKENS and wasted > MAX_WASTE * padded
        mixed = bool(current) and regimes[index] != regimes[current[-1]]
        if current and (padded > batch_tokens or wasteful or mixed):
            batches.append(current)
            current, n_real = [], 0
        current.append(index)
        n_real += lengths[index]
    return [*batches, current] if current else batches


def pack_tightly(
    lengths: Sequence[int], batch_tokens: int, regimes: Sequence[Regime], batch_cost: int
) -> list[list[int]]:
    """Cut sequences, sorted by length, into the batches that cost least; see `pack`.

    ``batch_cost`` is what a batch costs besides its tokens, padding included, in tokens.
    """
    order = sorted(range(len(lengths)), key=lambda i: (regimes[i], lengths[i], i))
    # By the number of sequences in batches: the least cost, and where the last batch starts.
    best: list[tuple[int, int]] = [(0, 0)]
    for stop, last in enumerate(order, 1):
        options: list[tuple[int, int]] = []
        for start in reversed(range(stop)):
            tokens = (stop - start) * lengths[last]
            mixed = regimes[order[start]] != regimes[last]
            if options and (tokens > batch_tokens or mixed):
                break
            options.append((best[start][0] + tokens + batch_cost, start))
        best.append(min(options))
    batches: list[list[int]] = []
    stop = len(order)
    while stop:
        start = best[stop][1]
        batches.append(order[start:stop])
        stop = start
    return batches[::-1]


def batch_cost(loaded: LoadedModel) -> int:
    """Return what a batch costs besides its tokens, in tokens."""
    return BATCH_COST if loaded.device.type == "cpu" else LAUNCH_COST


def pad(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], side: Literal["left", "right"]
) -> PaddedBatch:
    """Fill rows of token ids up to the longest, on the side asked for, whatever the tokenizer's."""
    width = max(len(row) for row in rows)
    fill = loaded.pad_token_id
    if side == "right":
        filled = [[*row, *[fill] * (width - len(row))] for row in rows]
    else:
        filled = [[*[fill] * (width - len(row)), *row] for row in rows]
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    place = torch.arange(width)[None, :]
    mask = place < lengths if side == "right" else place >= width - lengths
    return PaddedBatch(torch.tensor(filled).to(loaded.device), mask.to(loaded.device))
