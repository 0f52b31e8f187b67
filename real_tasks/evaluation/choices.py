"""Multiple choice: log-likelihoods of the answers to questions (TruthfulQA, section 4)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from real_tasks.batching import check_lengths, encode, pack
from real_tasks.errors import UserInputError
from real_tasks.evaluation.logits import target_log_probs
from real_tasks.evaluation.mc import mc_scores
from real_tasks.interventions import Intervention, applied
from real_tasks.models import LoadedModel
from real_tasks.sharing import (
    MAX_SHARED_ROW,
    SharedBatch,
    SharedRow,
    common_length,
    filled,
    may_share,
)
from real_tasks.types import BehaviourData


@dataclass(frozen=True)
class _Read:
    """A token of an answer, and the column of its row at which it is predicted."""

    column: int
    token: int
    answer: int
    place_in_answer: int


@dataclass(frozen=True)
class ChoiceBatch:
    """Contexts, each with its answers, and where the answers' tokens are predicted.

    Attributes:
        rows: the contexts are the beginnings, the answers the ends.
        reads: flat index, row after row, of the position that predicts each answer token.
        targets: the answer tokens.
        slots: flat index of each answer token into ``[answer, token of the answer]``.
    """

    rows: SharedBatch
    reads: Int[Tensor, "token"]
    targets: Int[Tensor, "token"]
    slots: Int[Tensor, "token"]


@dataclass(frozen=True)
class EncodedChoices:
    """Questions encoded once, to be scored under many interventions.

    Attributes:
        labels: of every question's answers, 1 aligned and 0 violating.
        is_best: of every question's answers.
        longest: tokens of the longest answer.
    """

    batches: tuple[ChoiceBatch, ...]
    labels: tuple[tuple[int, ...], ...]
    is_best: tuple[tuple[bool, ...], ...]
    longest: int


def encode_choices(
    loaded: LoadedModel, data: BehaviourData, questions: Sequence[int], batch_tokens: int
) -> EncodedChoices:
    """Encode questions with all their answers.

    Context and answer are encoded together and split by the number of the context's tokens, as
    lm-evaluation-harness does; blanks that end the context belong to the answer. Where the tokens
    of the two together do not start with the context's own (a token reaches over the boundary), the
    split moves back to what the context has in common with all its answers, so that no token of an
    answer is lost and all answers of a question are judged from the same context.

    Args:
        loaded: the model, for its tokenizer and device.
        data: the behaviour.
        questions: indices into ``data.questions``.
        batch_tokens: most tokens of a batch, padding included.

    Raises:
        UserInputError: prompts longer than the model's positions, or an answer without tokens.
    """
    chosen = [data.questions[i] for i in questions]
    full_texts = [data.full_text(q, a) for q in chosen for a in q.answers]
    contexts = encode(loaded, [data.context(q).rstrip() for q in chosen])
    ids = encode(loaded, full_texts)
    check_lengths(loaded, [len(row) for row in ids], full_texts)
    share = may_share(loaded, max((len(row) for row in ids), default=0))
    rows: list[tuple[SharedRow, list[_Read]]] = []
    first = longest = 0
    for question, context in zip(chosen, contexts, strict=True):
        answers = ids[first : first + len(question.answers)]
        split = _split(context, answers, question.text)
        longest = max(longest, *(len(answer) - split for answer in answers))
        rows += _rows(answers, split, first, share)
        first += len(answers)
    batches = tuple(
        _batch(loaded, [rows[i] for i in indices], longest, share)
        for indices in pack([len(row.tokens) for row, _ in rows], batch_tokens)
    )
    labels = tuple(tuple(a.label for a in q.answers) for q in chosen)
    is_best = tuple(tuple(a.is_best for a in q.answers) for q in chosen)
    return EncodedChoices(batches, labels, is_best, longest)


def _split(context: Sequence[int], answers: Sequence[Sequence[int]], question: str) -> int:
    split = min((common_length(context, answer) for answer in answers), default=len(context))
    if not split or any(len(answer) == split for answer in answers):
        raise UserInputError(
            f"question {question!r}: an answer without tokens of its own, or a context without "
            "any; expected a template with the question before {answer}, and no empty answers"
        )
    return split


def _rows(
    answers: Sequence[Sequence[int]], split: int, first: int, share: bool
) -> list[tuple[SharedRow, list[_Read]]]:
    rows: list[tuple[SharedRow, list[_Read]]] = []
    for number, answer in enumerate(answers, start=first):
        own = answer[split:]
        if not rows or not share or len(rows[-1][0].tokens) + len(own) > MAX_SHARED_ROW:
            rows.append((SharedRow(answer[:split]), []))
        row, reads = rows[-1]
        # The last token predicts nothing that is asked for.
        start = row.add(own[:-1])
        columns = [split - 1, *range(start, start + len(own) - 1)]
        for place, (column, token) in enumerate(zip(columns, own, strict=True)):
            reads.append(_Read(column, token, number, place))
    return rows


def _batch(
    loaded: LoadedModel,
    rows: Sequence[tuple[SharedRow, list[_Read]]],
    longest: int,
    share: bool,
) -> ChoiceBatch:
    batch = filled(loaded, [row for row, _ in rows], share)
    width = batch.input_ids.shape[1]
    reads = [(index * width + r.column, r) for index, (_, many) in enumerate(rows) for r in many]
    return ChoiceBatch(
        batch,
        torch.tensor([flat for flat, _ in reads], device=loaded.device),
        torch.tensor([r.token for _, r in reads], device=loaded.device),
        torch.tensor([r.answer * longest + r.place_in_answer for _, r in reads]).to(loaded.device),
    )


@torch.inference_mode()
def score_choices(
    loaded: LoadedModel, encoded: EncodedChoices, intervention: Intervention | None
) -> list[list[float]]:
    """Return each answer's log-likelihood in nats, summed over its tokens, question by question.

    The language-model head runs only where a token of an answer is predicted. Token scopes other
    than ``all`` take the context for the prompt and the answer for the generated text.
    """
    n_answers = sum(len(labels) for labels in encoded.labels)
    log_probs = torch.zeros(n_answers * encoded.longest, device=loaded.device)
    for batch in encoded.batches:
        inputs = batch.rows.decoder_inputs(loaded.model.dtype)
        with applied(loaded, intervention, batch.rows.beginnings):
            hidden = loaded.decoder(**inputs).last_hidden_state.flatten(0, 1)
        log_probs[batch.slots] = target_log_probs(loaded, hidden[batch.reads], batch.targets)
    sums = log_probs.view(n_answers, -1).sum(1).tolist() if n_answers else []
    remaining = iter(sums)
    return [[next(remaining) for _ in labels] for labels in encoded.labels]


def choice_scores(
    loaded: LoadedModel, encoded: EncodedChoices, intervention: Intervention | None
) -> dict[str, list[float]]:
    """Return ``mc0`` to ``mc3``, each a list over the questions; see `mc_scores`."""
    log_probs = score_choices(loaded, encoded, intervention)
    scores = map(mc_scores, log_probs, encoded.labels, encoded.is_best)
    rows = [asdict(question) for question in scores]
    return {name: [row[name] for row in rows] for name in ("mc0", "mc1", "mc2", "mc3")}
