"""Multiple choice: log-likelihoods of answers, and the scores MC0 to MC3 (TruthfulQA, section 4).

The answers of a question share their context, so a row holds the context once and the answers after
it; a mask keeps each answer from the others, and positions count on from the context in each. That
gives the likelihoods of one answer at a time for a fraction of the tokens.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from real_tasks.batching import check_lengths, encode, pack
from real_tasks.errors import UserInputError
from real_tasks.evaluation.logits import target_log_probs
from real_tasks.evaluation.mc import mc_scores
from real_tasks.interventions import Intervention, applied
from real_tasks.models import LoadedModel
from real_tasks.types import BehaviourData

MAX_SHARED_ROW = 1024
"""Tokens up to which answers join a row; the mask grows with the square of a row's length."""
CONTEXT = 0
PADDING = -1


@dataclass
class _Row:
    """A context and answers after it; `segments` is 0 in the context, k in the k-th answer."""

    tokens: list[int]
    positions: list[int]
    segments: list[int]
    prompt_length: int
    reads: list[tuple[int, int, int, int]] = field(default_factory=list)
    """For each answer token: column that predicts it, token, answer, index within the answer."""

    def add(self, answer: int, continuation: Sequence[int]) -> None:
        start, segment = len(self.tokens), self.segments[-1] + 1
        for i, token in enumerate(continuation):
            column = start + i - 1 if i else self.prompt_length - 1
            self.reads.append((column, token, answer, i))
        # The last token predicts nothing that is asked for.
        fed = continuation[:-1]
        self.tokens += fed
        self.positions += range(self.prompt_length, self.prompt_length + len(fed))
        self.segments += [segment] * len(fed)


@dataclass(frozen=True)
class ChoiceBatch:
    """Rows filled up on the right, and where the answers' tokens are predicted; on the device.

    Attributes:
        segments: 0 in the context, k in the k-th answer of a row, -1 in the padding.
        reads: flat index, row after row, of the position that predicts each answer token.
        slots: flat index of each answer token into ``[answer, token of the answer]``.
    """

    input_ids: Int[Tensor, "row position"]
    position_ids: Int[Tensor, "row position"]
    segments: Int[Tensor, "row position"]
    prompt_lengths: Int[Tensor, "row"]
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
        shared: whether answers share rows.
    """

    batches: tuple[ChoiceBatch, ...]
    labels: tuple[tuple[int, ...], ...]
    is_best: tuple[tuple[bool, ...], ...]
    longest: int
    shared: bool


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
    shared = _may_share_rows(loaded, max((len(row) for row in ids), default=0))
    rows: list[_Row] = []
    first = longest = 0
    for question, context in zip(chosen, contexts, strict=True):
        answers = ids[first : first + len(question.answers)]
        split = _split(context, answers, question.text)
        longest = max(longest, *(len(a) - split for a in answers))
        rows += _rows(answers, split, first, shared)
        first += len(answers)
    batches = [
        _batch(loaded, [rows[i] for i in indices], longest)
        for indices in pack([len(row.tokens) for row in rows], batch_tokens)
    ]
    labels = tuple(tuple(a.label for a in q.answers) for q in chosen)
    is_best = tuple(tuple(a.is_best for a in q.answers) for q in chosen)
    return EncodedChoices(tuple(batches), labels, is_best, longest, shared)


def _may_share_rows(loaded: LoadedModel, longest: int) -> bool:
    # One mask serves all layers, so it cannot stand in for a sliding window that would cut.
    window = getattr(loaded.model.config, "sliding_window", None)
    return window is None or longest <= window


def _split(context: Sequence[int], answers: Sequence[Sequence[int]], question: str) -> int:
    split = len(context)
    for answer in answers:
        pairs = zip(context[:split], answer, strict=False)
        split = next((i for i, (a, b) in enumerate(pairs) if a != b), min(split, len(answer)))
    if not split or any(len(answer) == split for answer in answers):
        raise UserInputError(
            f"question {question!r}: an answer without tokens of its own, or a context without "
            "any; expected a template with the question before {answer}, and no empty answers"
        )
    return split


def _rows(answers: Sequence[Sequence[int]], split: int, first: int, shared: bool) -> list[_Row]:
    rows: list[_Row] = []
    for number, answer in enumerate(answers, start=first):
        grown = len(rows[-1].tokens) + len(answer) - split - 1 if rows else 0
        if not rows or not shared or grown > MAX_SHARED_ROW:
            context = list(answer[:split])
            rows.append(_Row(context, list(range(split)), [CONTEXT] * split, split))
        rows[-1].add(number, answer[split:])
    return rows


def _batch(loaded: LoadedModel, rows: Sequence[_Row], longest: int) -> ChoiceBatch:
    width = max(len(row.tokens) for row in rows)

    def filled(values: Sequence[Sequence[int]], fill: int) -> Int[Tensor, "row position"]:
        return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values])

    reads = [
        (i * width + c, t, a * longest + k) for i, r in enumerate(rows) for c, t, a, k in r.reads
    ]
    places, targets, slots = torch.tensor(reads).T.contiguous().to(loaded.device)
    return ChoiceBatch(
        filled([row.tokens for row in rows], loaded.pad_token_id).to(loaded.device),
        filled([row.positions for row in rows], 0).to(loaded.device),
        filled([row.segments for row in rows], PADDING).to(loaded.device),
        torch.tensor([row.prompt_length for row in rows]).to(loaded.device),
        places,
        targets,
        slots,
    )


def _shared_mask(
    segments: Int[Tensor, "row position"], dtype: torch.dtype
) -> Float[Tensor, "row 1 position position"]:
    """Return what is added to attention scores: 0 where a position may look, else the lowest."""
    seen, sees = segments[:, None, :], segments[:, :, None]
    visible = ((seen == CONTEXT) | (seen == sees)).tril()
    hidden = torch.zeros(visible.shape, dtype=dtype, device=segments.device)
    hidden.masked_fill_(~visible, torch.finfo(dtype).min)
    return rearrange(hidden, "row sees seen -> row 1 sees seen")


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
        mask: Float[Tensor, "row 1 position position"] | Bool[Tensor, "row position"]
        if encoded.shared:
            mask = _shared_mask(batch.segments, loaded.model.dtype)
        else:
            mask = batch.segments != PADDING
        with applied(loaded, intervention, batch.prompt_lengths):
            hidden = loaded.decoder(
                input_ids=batch.input_ids,
                attention_mask=mask,
                position_ids=batch.position_ids,
                use_cache=False,
            ).last_hidden_state.flatten(0, 1)
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
