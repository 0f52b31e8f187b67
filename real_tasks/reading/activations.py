"""Activations: the numbers of a model's modules at tokens of a text.

Of a head it is its part of the input of the attention's output projection, ``o_proj`` (method of
REAL, section 3.1); for other kinds see `ModuleKind`. One call serves one shard of texts, so that
memory follows the shard, not the data set.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.models.chat import ChatText
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import places
from real_tasks.models.text_model import ReadsTexts
from real_tasks.reading.batches import N_NAMED, check_lengths, encode
from real_tasks.reading.out_of_memory import in_batches
from real_tasks.reading.overflow import check_finite, unsteered_mend
from real_tasks.reading.shared_rows import SharedRow, filled, group_by_beginning, may_share
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleKind

Groups = Sequence[tuple[int, list[int]]]
"""Texts that share a row: the length of their common beginning in tokens, and their indices."""


def activations_at_last_token(
    loaded: LoadedModel, texts: Sequence[str], batch_tokens: int, kind: ModuleKind = "head"
) -> Float[Tensor, "sample layer module d"]:
    """Return the activations at the last token of each text; see `activations_at`."""
    return activations_at(loaded, texts, None, batch_tokens, kind)


@torch.no_grad()
def activations_at(
    loaded: LoadedModel,
    texts: Sequence[str],
    positions: Sequence[Sequence[int]] | None,
    batch_tokens: int,
    kind: ModuleKind = "head",
    largest: float = math.inf,
) -> Float[Tensor, "sample layer module d"]:
    """Return the activations at some tokens of each text, float32 on the CPU.

    Texts that begin alike share a row, rows of similar length a batch; they are filled up on the
    right and masked. The language-model head is skipped, and of a batch only what is asked for is
    kept of every layer. A batch that does not fit the memory is halved.

    Args:
        loaded: the model; no other thread may use the same model object meanwhile.
        texts: one shard.
        positions: of each text the places of its tokens, from 0, over which the mean is taken (see
            `real_tasks.reading.positions_read`); None: the last token.
        batch_tokens: most tokens of a batch, padding included.
        kind: the modules to read.
        largest: size up to which an activation can be stored.

    Raises:
        UserInputError: texts without tokens or longer than the model's positions, activations with
            NaN or infinity (says in which layer and for which texts) or too large to be stored, a
            text that does not fit the memory even alone, or a model without such modules.
    """
    ids = encode(loaded, texts)
    check_lengths(loaded, [len(row) for row in ids], texts)
    read = [[len(row) - 1] for row in ids] if positions is None else positions
    shape, n_modules = loaded.shape, loaded.shape.modules_per_layer(kind)
    values = torch.empty(len(ids), shape.n_layers_of(kind), n_modules, shape.width(kind))
    groups = _groups(loaded, ids)
    widths = [length + sum(len(ids[i]) - length for i in members) for length, members in groups]

    def run(indices: list[int]) -> None:
        chosen = [groups[i] for i in indices]
        samples = [sample for _, members in chosen for sample in members]
        found = _batch_activations(loaded, ids, read, chosen, kind)
        bad = ~found.isfinite().flatten(1).all(1)
        if bad.any():
            suspects = [samples[i] for i in bad.nonzero().flatten().tolist()]
            raise UserInputError(_where_not_finite(loaded, ids, read, texts, suspects, kind))
        if found.abs().max() > largest:
            raise UserInputError(
                f"an activation of size {float(found.abs().max()):g}, but the type that "
                f"activations are stored in ends at {largest:g}; set extraction.dtype to float32"
            )
        values[samples] = rearrange(
            found, "sample layer (module d) -> sample layer module d", module=n_modules
        )

    # Texts share rows only where length changes nothing.
    regimes = [loaded.regime(max(len(ids[i]) for i in members)) for _, members in groups]
    in_batches(loaded, "activations", widths, batch_tokens, run, regimes)
    return values


def check_vocabulary(loaded: ReadsTexts, texts: Sequence[str]) -> None:
    """Check that the tokenizer knows every word; a tokenizer without an unknown token knows all.

    The unknown token may begin or end sequences as well; where it is written, nothing is unknown.

    Raises:
        UserInputError: names the first unknown words and counts the texts that hold one.
    """
    if loaded.tokenizer.unk_token_id is None:
        return
    # A `ChatText` gets no special tokens, so that what is unknown is a word.
    bare = [ChatText(text.replace(str(loaded.tokenizer.unk_token), " ")) for text in texts]
    worded = [index for index, text in enumerate(bare) if text.strip()]
    ids = encode(loaded, [bare[index] for index in worded])
    unknown_id = loaded.tokenizer.unk_token_id
    affected = [index for index, row in zip(worded, ids, strict=True) if unknown_id in row]
    if not affected:
        return
    words = dict.fromkeys(word for i in affected for word in _unknown_words(loaded, bare[i]))
    shown = ", ".join(repr(word) for word in list(words)[:N_NAMED])
    raise UserInputError(
        f"{len(affected)} of {len(texts)} texts hold words that the tokenizer does not know: "
        f"{shown}; expected texts in the model's own vocabulary (first: {texts[affected[0]]!r})"
    )


def _unknown_words(loaded: ReadsTexts, text: str) -> list[str]:
    unknown_id = loaded.tokenizer.unk_token_id
    if not loaded.tokenizer.is_fast:
        words = [ChatText(word) for word in text.split()]
        return [w for w, row in zip(words, encode(loaded, words), strict=True) if unknown_id in row]
    encoded = loaded.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [text[begin:end] for token, (begin, end) in pairs if token == unknown_id]


def _groups(loaded: LoadedModel, ids: Sequence[Sequence[int]]) -> Groups:
    if may_share(loaded, max((len(row) for row in ids), default=0)):
        return group_by_beginning(ids)
    return [(len(row), [i]) for i, row in enumerate(ids)]


def _batch_activations(
    loaded: LoadedModel,
    ids: Sequence[Sequence[int]],
    read: Sequence[Sequence[int]],
    groups: Groups,
    kind: ModuleKind,
) -> Float[Tensor, "sample layer width"]:
    rows, found_at, counts = [], [], []
    for number, (length, members) in enumerate(groups):
        row = SharedRow(ids[members[0]][:length])
        for sample in members:
            end = row.add(ids[sample][length:])
            columns = [place if place < length else end[place - length] for place in read[sample]]
            found_at += [(number, column) for column in columns]
            counts.append(len(columns))
        rows.append(row)
    batch = filled(loaded, rows, shares=len(counts) > len(rows))
    row_of, column_of = torch.tensor(found_at, device=loaded.device).T
    lengths = None if max(counts) == 1 else torch.tensor(counts)
    with _kept(loaded, kind, row_of, column_of, lengths) as kept:
        states = loaded.hidden_states(**batch.decoder_inputs(loaded.model.dtype))
    layers = [kept[layer].to(loaded.device) for layer in range(len(kept))]
    found = torch.stack(layers, dim=1).float().cpu()
    if found.isfinite().all():
        # What follows may overflow all the same, and then nothing could be measured.
        logits = loaded.logits(states[row_of[:1], column_of[:1]])
        check_finite(loaded, logits, "logits", steered=False)
    return found


@contextmanager
def _kept(
    loaded: LoadedModel,
    kind: ModuleKind,
    rows: Int[Tensor, "place"],
    columns: Int[Tensor, "place"],
    lengths: Int[Tensor, "sample"] | None,
) -> Iterator[dict[int, Float[Tensor, "sample width"]]]:
    """Keep, by layer, the numbers of a part at some places of the batch that runs meanwhile.

    ``lengths`` says how many places in a row are one sample's, over which the mean is taken; None:
    one each.
    """
    kept: dict[int, Float[Tensor, "sample width"]] = {}

    def keep(layer: int, values: Tensor) -> None:
        found = values[rows.to(values.device), columns.to(values.device)]
        if lengths is not None:
            own = lengths.to(values.device)
            found = torch.segment_reduce(found.float(), "mean", lengths=own)
        kept[layer] = found

    with ExitStack() as hooks:
        for layer, place in enumerate(places(loaded.model, kind)):
            hooks.callback(place.hook(partial(keep, layer)).remove)
        yield kept


def _where_not_finite(
    loaded: LoadedModel,
    ids: Sequence[Sequence[int]],
    read: Sequence[Sequence[int]],
    texts: Sequence[str],
    suspects: list[int],
    kind: ModuleKind,
) -> str:
    """Read the suspects again, each alone: what is not finite spreads over a shared row."""
    first_layer, affected = loaded.shape.n_layers, []
    for sample in suspects:
        found = _batch_activations(loaded, ids, read, [(len(ids[sample]), [sample])], kind)
        layers = (~found[0].isfinite().all(-1)).nonzero().flatten().tolist()
        if layers:
            affected.append(texts[sample])
            first_layer = min(first_layer, layers[0])
    shown = "; ".join(repr(text[:60]) for text in affected[:N_NAMED])
    return (
        f"activations with NaN or infinity, from layer {first_layer} on, for {len(affected)} of "
        f"the texts of a batch: {shown}; {unsteered_mend(loaded)}"
    )
