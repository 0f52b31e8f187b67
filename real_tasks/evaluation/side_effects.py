"""Side effects of steering on neutral text: cross-entropy, and KL(original || steered)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from real_tasks.evaluation.answers.logits import chunks_of, next_token_log_probs
from real_tasks.models.kept_states import batch_key
from real_tasks.models.loading import LoadedModel
from real_tasks.models.text_model import ReadsTexts
from real_tasks.reading.batches import batch_cost, check_lengths, encode, pack_tightly, pad
from real_tasks.reading.out_of_memory import halving
from real_tasks.reading.overflow import check_finite
from real_tasks.steering.edits import Intervention
from real_tasks.steering.resuming import steered_states
from real_tasks.vocabulary.errors import OverflowedError, UserInputError
from real_tasks.vocabulary.scopes import PromptEnds

MAX_TOKENS = 256
"""Tokens of a neutral text that are read: paragraphs of a data set differ much in length."""
LARGEST_CROSS_ENTROPY = 700.0
"""Nats per token of which the perplexity is a number."""
WORK = "side effects"
"""Name in the log of what this module does."""


class SideEffects(NamedTuple):
    """Means over predicted tokens of the neutral texts, in nats per token.

    Attributes:
        cross_entropy: of the steered model, over all tokens.
        kl: KL(original || steered) of the next-token distributions, over those behind the prompt.
    """

    cross_entropy: float
    kl: float


@dataclass(frozen=True)
class NeutralBatch:
    """Texts filled up on the right, and every position that predicts a token; on the device.

    Attributes:
        reads: flat index, row after row, of the positions that predict a token.
        targets: the tokens that come next there.
        prompt_lengths: 1 for every text.
        key: tells the batch from others.
    """

    input_ids: Int[Tensor, "row position"]
    mask: Bool[Tensor, "row position"]
    prompt_lengths: Int[Tensor, "row"]
    reads: Int[Tensor, "token"]
    targets: Int[Tensor, "token"]
    key: str


@dataclass(frozen=True)
class EncodedNeutral:
    """Neutral texts encoded once, to be measured under many interventions.

    Attributes:
        n_tokens: tokens predicted.
    """

    batches: tuple[NeutralBatch, ...]
    n_tokens: int


def neutral_rows(loaded: ReadsTexts, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of neutral texts that count; a text without one to predict has none.

    Raises:
        UserInputError: see `encode_neutral`.
    """
    encoded = [row[:MAX_TOKENS] for row in encode(loaded, texts)]
    check_lengths(loaded, [len(row) for row in encoded], texts)
    rows = [row for row in encoded if len(row) > 1]
    if not rows:
        raise UserInputError(
            f"none of the {len(texts)} neutral texts has a token to predict; give at least one "
            "text of two tokens"
        )
    return rows


@torch.inference_mode()
def encode_neutral(loaded: LoadedModel, texts: Sequence[str], batch_tokens: int) -> EncodedNeutral:
    """Encode neutral texts; the unsteered model is read once, with the first measurement.

    Of each text the first `MAX_TOKENS` tokens count.

    Raises:
        UserInputError: no text has two tokens, or texts longer than the model's positions.
    """
    rows = neutral_rows(loaded, texts)
    lengths = [len(row) for row in rows]
    regimes = [loaded.regime(length) for length in lengths]
    packed = pack_tightly(lengths, batch_tokens, regimes, batch_cost(loaded))
    batches = tuple(_batch(loaded, [rows[i] for i in indices]) for indices in packed)
    shortest = _rows_of(batches[0], [0])
    log_probs = next_token_log_probs(loaded, _hidden(loaded, shortest, None))
    check_finite(loaded, log_probs, "neutral text", steered=False)
    return EncodedNeutral(batches, sum(len(batch.targets) for batch in batches))


def _batch(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> NeutralBatch:
    padded = pad(loaded, rows, "right")
    predicts = padded.mask.clone()
    predicts[:, :-1] &= padded.mask[:, 1:]
    predicts[:, -1] = False
    reads = predicts.flatten().nonzero().flatten()
    targets = padded.input_ids.flatten()[reads + 1]
    ones = torch.ones(len(rows), dtype=torch.long, device=loaded.device)
    key = batch_key("neutral", rows)
    return NeutralBatch(padded.input_ids, padded.mask, ones, reads, targets, key)


def _lengths(batch: NeutralBatch) -> list[int]:
    n_rows, width = batch.input_ids.shape
    return [width] * n_rows


def _rows_of(batch: NeutralBatch, rows: Sequence[int]) -> NeutralBatch:
    """Return some rows, one after another."""
    n_rows, width = batch.input_ids.shape
    if len(rows) == n_rows:
        return batch
    first, end = rows[0], rows[-1] + 1
    bounds = torch.tensor([first * width, end * width], device=batch.reads.device)
    tokens = slice(*torch.searchsorted(batch.reads, bounds).tolist())
    return NeutralBatch(
        batch.input_ids[first:end],
        batch.mask[first:end],
        batch.prompt_lengths[first:end],
        batch.reads[tokens] - first * width,
        batch.targets[tokens],
        batch_key(batch.key, first, end),
    )


def _hidden(
    loaded: LoadedModel, batch: NeutralBatch, intervention: Intervention | None
) -> Float[Tensor, "token d_model"]:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.mask, "use_cache": False}
    # To a gate the whole text is a prompt.
    lengths, prompts = batch.mask.sum(dim=1), _prompt_lengths(batch, intervention)
    states = steered_states(loaded, intervention, batch.key, inputs, prompts, lengths)
    return states.flatten(0, 1)[batch.reads]


def _prompt_lengths(batch: NeutralBatch, intervention: Intervention | None) -> Int[Tensor, "row"]:
    edits = intervention.edits if intervention else ()
    if not any(isinstance(edit.scope, PromptEnds) for edit in edits):
        return batch.prompt_lengths
    return (batch.mask.sum(dim=1) // 2).clamp(min=1)


def _behind_prompts(
    batch: NeutralBatch, intervention: Intervention | None
) -> Bool[Tensor, "token"] | None:
    """Return which predicted tokens are behind a prompt; None where prompts are one token long."""
    prompts = _prompt_lengths(batch, intervention)
    if prompts is batch.prompt_lengths:
        return None
    width = batch.mask.shape[1]
    return batch.reads % width >= prompts[batch.reads // width] - 1


@torch.inference_mode()
def side_effects(
    loaded: LoadedModel, encoded: EncodedNeutral, intervention: Intervention | None
) -> SideEffects:
    """Measure what an intervention does to neutral text, the true previous tokens given.

    The first token of a text (its beginning-of-sequence token, where the tokenizer has one) counts
    as the prompt and all that follows as generated: scope ``generated`` steers from the second
    position on, scope ``last`` from the first on, like ``all``. Where prompts' ends are steered,
    the first half of a text is the prompt, and KL is that of the other half.

    Raises:
        OverflowedError: steering is so strong that they are no numbers.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=loaded.device)
    for batch in encoded.batches:

        def run(rows: list[int], batch: NeutralBatch = batch) -> None:
            sums.add_(_summed(loaded, _rows_of(batch, rows), intervention))

        halving(loaded, WORK, _lengths(batch), run)
    check_finite(loaded, sums, "cross-entropy and KL", steered=intervention is not None)
    cross_entropy, kl = float(sums[0] / encoded.n_tokens), float(sums[1] / sums[2])
    if cross_entropy > LARGEST_CROSS_ENTROPY:
        raise OverflowedError(
            f"a cross-entropy of {cross_entropy:g} nats per token, whose perplexity is beyond "
            "every number; steer less (a smaller alpha)"
        )
    return SideEffects(cross_entropy, kl)


def _summed(
    loaded: LoadedModel, batch: NeutralBatch, intervention: Intervention | None
) -> Float[Tensor, "3"]:
    """Return cross-entropy and KL, summed over a batch, and the tokens behind its prompts."""
    sums = torch.zeros(3, dtype=torch.float64, device=loaded.device)
    behind = _behind_prompts(batch, intervention)
    sums[2] = len(batch.reads) if behind is None else behind.sum()
    unsteered, steered = (_hidden(loaded, batch, one) for one in (None, intervention))
    for chunk in chunks_of(loaded, len(batch.targets)):
        log_p, log_q = (next_token_log_probs(loaded, one[chunk]) for one in (unsteered, steered))
        sums[0] -= log_q.gather(1, batch.targets[chunk, None]).sum()
        # In place: blocks of logits are the largest that there is.
        gap = torch.sub(log_p, log_q, out=log_q)
        lost = log_p.exp_().mul_(gap)
        sums[1] += (lost if behind is None else lost[behind[chunk]]).sum()
    return sums
