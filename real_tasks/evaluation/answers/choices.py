"""Multiple choice: log-likelihoods of the answers to questions (TruthfulQA, section 4)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache

from real_tasks.evaluation.answers.choice_batches import ChoiceBatch, ChoiceRow, batch_of, rows_of
from real_tasks.evaluation.answers.logits import target_log_probs
from real_tasks.evaluation.answers.mc_scores import mc_scores
from real_tasks.evaluation.answers.prefix import (
    CACHED_TOKENS_PER_TOKEN,
    after_prefix,
    common_prefix,
    read_prefix,
)
from real_tasks.models.loading import LoadedModel
from real_tasks.models.rope import Regime
from real_tasks.reading.asked import ask
from real_tasks.reading.batches import batch_cost, pack_tightly
from real_tasks.reading.out_of_memory import halving
from real_tasks.reading.overflow import check_finite
from real_tasks.reading.shared_rows import may_share
from real_tasks.steering.edits import Intervention
from real_tasks.steering.resuming import steered_states
from real_tasks.vocabulary.types import BehaviourData


@dataclass(frozen=True)
class EncodedChoices:
    """Questions encoded once, to be scored under many interventions.

    A question stands here once for every way in which it is put (`Question.presentations`).

    Attributes:
        prefix: tokens that stand before every row and are read once per intervention; may be none.
        presentations: of every question asked for, in how many ways it is put.
        labels: of every question's answers, 1 aligned and 0 violating.
        is_best: of every question's answers.
        longest: tokens of the longest answer.
    """

    prefix: tuple[int, ...]
    batches: tuple[ChoiceBatch, ...]
    presentations: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    is_best: tuple[tuple[bool, ...], ...]
    longest: int


def encode_choices(
    loaded: LoadedModel,
    data: BehaviourData,
    questions: Sequence[int],
    batch_tokens: int,
    share_prefix: bool = True,
) -> EncodedChoices:
    """Encode questions with all their answers, split as `ask` says.

    A long common beginning of all texts is read only once, unless ``share_prefix`` says otherwise:
    not for edits that need to know the whole prompt. For ``batch_tokens`` see also
    `CACHED_TOKENS_PER_TOKEN`.

    Raises:
        UserInputError: prompts longer than the model's positions, or an answer without tokens.
    """
    chosen = [way for i in questions for way in data.questions[i].presentations]
    asked = ask(loaded, data, chosen)
    longest_text = max((len(text) for one in asked for text in one.texts), default=0)
    share = may_share(loaded, longest_text)
    contexts = [one.texts[0][: one.split] for one in asked]
    n_prefix = common_prefix(loaded, contexts, longest_text) if share_prefix else 0
    longest = max((len(text) - one.split for one in asked for text in one.texts), default=0)
    rows: list[ChoiceRow] = []
    regimes: list[Regime] = []
    first = 0
    for one in asked:
        own = rows_of(one, n_prefix, first, share)
        rows += own
        # Texts share rows only where length changes nothing.
        regimes += [loaded.regime(len(row.tokens) if not share else 0) for row, _ in own]
        first += len(one.texts)
    lengths = [len(row.tokens) + n_prefix // CACHED_TOKENS_PER_TOKEN for row, _ in rows]
    prefix = tuple(contexts[0][:n_prefix]) if n_prefix else ()
    batches = tuple(
        batch_of(loaded, [rows[i] for i in indices], longest, share, prefix)
        for indices in pack_tightly(lengths, batch_tokens, regimes, batch_cost(loaded))
    )
    labels = tuple(tuple(a.label for a in q.answers) for q in chosen)
    is_best = tuple(tuple(a.is_best for a in q.answers) for q in chosen)
    presentations = tuple(len(data.questions[i].presentations) for i in questions)
    return EncodedChoices(prefix, batches, presentations, labels, is_best, longest)


@torch.inference_mode()
def score_choices(
    loaded: LoadedModel, encoded: EncodedChoices, intervention: Intervention | None
) -> list[list[float]]:
    """Return each answer's log-likelihood in nats, summed over its tokens, question by question.

    The language-model head runs only where a token of an answer is predicted. Token scopes other
    than ``all`` take the context for the prompt and the answer for the generated text. A batch that
    does not fit the memory is halved.

    Raises:
        OverflowedError: steering is so strong that they are no numbers.
    """
    assert not encoded.prefix or intervention is None or intervention.shares_prompts
    n_answers = sum(len(labels) for labels in encoded.labels)
    log_probs = torch.zeros(n_answers * encoded.longest, device=loaded.device)
    prefix = read_prefix(loaded, encoded.prefix, intervention)
    for batch in encoded.batches:
        _score_batch(loaded, batch, prefix, intervention, log_probs)
    check_finite(loaded, log_probs, "log-probabilities of answers", intervention is not None)
    sums = log_probs.view(n_answers, -1).sum(1).tolist() if n_answers else []
    remaining = iter(sums)
    return [[next(remaining) for _ in labels] for labels in encoded.labels]


def _score_batch(
    loaded: LoadedModel,
    batch: ChoiceBatch,
    prefix: Cache | None,
    intervention: Intervention | None,
    log_probs: Float[Tensor, "slot"],
) -> None:
    """Write the log-probabilities of a batch's answer tokens where its slots say."""
    n_prefix = 0 if prefix is None else prefix.get_seq_length()

    def run(numbers: list[int]) -> None:
        part = batch.part(numbers[0], numbers[-1] + 1)
        inputs = after_prefix(part.rows.decoder_inputs(loaded.model.dtype), prefix)
        ends = part.rows.beginnings + n_prefix
        hidden = steered_states(loaded, intervention, part.key, inputs, ends).flatten(0, 1)
        found = target_log_probs(loaded, hidden[part.reads], part.targets, part.at)
        log_probs[part.slots] = found

    n_rows, width = batch.rows.input_ids.shape
    halving(loaded, "choices", [width + n_prefix // CACHED_TOKENS_PER_TOKEN] * n_rows, run)


def choice_scores(
    loaded: LoadedModel, encoded: EncodedChoices, intervention: Intervention | None
) -> dict[str, list[float]]:
    """Return ``mc0`` to ``mc3``, each a list over the questions; see `mc_scores`.

    A question that is put in several ways has the mean over them.
    """
    log_probs = score_choices(loaded, encoded, intervention)
    scores = map(mc_scores, log_probs, encoded.labels, encoded.is_best)
    rows = iter([asdict(one) for one in scores])
    grouped = [[next(rows) for _ in range(n)] for n in encoded.presentations]
    return {
        name: [sum(row[name] for row in ways) / len(ways) for ways in grouped]
        for name in ("mc0", "mc1", "mc2", "mc3")
    }
