"""Training of a small Llama from scratch on encoded documents; knows nothing of any world."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from real_tasks.models.embedded.head_dropout import head_dropout
from real_tasks.models.embedded.muon import BatchedMuon, orthogonalise
from real_tasks.models.embedded.threads import ThreadChoice, alike

_LENGTH_BUCKET_BATCHES = 16


@dataclass(frozen=True)
class TrainingRecipe:
    """How to train.

    Attributes:
        steps: optimizer steps.
        batch_documents: documents in a step.
        muon_lr: learning rate of Muon, for the matrices of the blocks.
        muon_momentum: share of Muon's gradient average that is kept in a step.
        muon_iterations: Newton-Schulz iterations in Muon; with 3, learning starts 100 steps later.
        adam_lr: learning rate of AdamW, for embeddings and norms.
        weight_decay: decoupled weight decay; none on norms.
        warmup_steps: steps of linear warm-up, at most a tenth of all; then a cosine.
        final_lr_share: learning rate at the end, as a share of its peak.
        max_grad_norm: gradients are clipped to this norm.
        head_dropout: probability that a whole head is silenced in a sequence. It spreads knowledge
            over heads, so that no single head carries a behaviour alone.
        head_dropout_start: share of the steps without head dropout; from the first step on, nothing
            is learned.
    """

    steps: int = 700
    batch_documents: int = 14
    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    muon_iterations: int = 5
    adam_lr: float = 0.04
    weight_decay: float = 0.05
    warmup_steps: int = 40
    final_lr_share: float = 0.02
    max_grad_norm: float = 1.0
    head_dropout: float = 0.12
    head_dropout_start: float = 0.4


@dataclass(frozen=True)
class EncodedDocument:
    """Token ids with BOS and EOS, and the loss weight of predicting each (the first is unused)."""

    token_ids: tuple[int, ...]
    loss_weights: tuple[float, ...]


@dataclass(frozen=True)
class _Batch:
    token_ids: Int[Tensor, "document position"]
    loss_weights: Float[Tensor, "document position"]
    tokens: int


def train(
    config: LlamaConfig,
    documents: Sequence[EncodedDocument],
    recipe: TrainingRecipe,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train a Llama from scratch, each document once, on the CPU in float32.

    The result depends on the arguments alone; the global random state is left as it was. The seed
    is that of the initial weights, the order of batches and the head dropout. With as many of
    torch's threads, or fewer, as are fastest at the moment and lead to the same bits.

    Returns:
        The model in evaluation mode, and facts to record: steps, documents, tokens, parameters, and
        the loss in nats per weighted token, a mean over the last twentieth of the steps.

    Raises:
        ValueError: there are too few documents (a step takes `recipe.batch_documents`), or the
            architecture has no padding token.
    """
    pad_token_id = _checked_pad_token(config, documents, recipe)
    generator = torch.Generator().manual_seed(seed)
    model = _initialise(config, seed)
    batches = _batches(documents, recipe, pad_token_id, generator)
    optimizers = _optimizers(model, recipe)
    losses, most = [], torch.get_num_threads()
    choice = ThreadChoice(alike(partial(_gradients, model, batches)))
    with head_dropout(model, recipe.head_dropout, generator) as dropout:
        for step, batch in enumerate(batches):
            dropout.active = step >= recipe.head_dropout_start * recipe.steps
            factor = _lr_factor(step, recipe)
            start, threads = time.perf_counter(), choice.next()
            torch.set_num_threads(threads)
            losses.append(_step(model, batch, optimizers, factor, recipe.max_grad_norm))
            choice.note(threads, (time.perf_counter() - start) / batch.token_ids.numel())
            on_progress(step + 1, recipe.steps)
    torch.set_num_threads(most)
    model.eval()
    return model, _facts(model, batches, losses)


def _checked_pad_token(
    config: LlamaConfig, documents: Sequence[EncodedDocument], recipe: TrainingRecipe
) -> int:
    needed = recipe.steps * recipe.batch_documents
    if len(documents) < needed:
        raise ValueError(f"{len(documents)} documents for {needed}; make more or train fewer steps")
    if config.pad_token_id is None:
        raise ValueError("the architecture has no pad_token_id; give one, distinct from EOS")
    return config.pad_token_id


def _facts(model: LlamaForCausalLM, batches: list[_Batch], losses: list[Tensor]) -> dict[str, Any]:
    tail = losses[-max(1, len(losses) // 20) :]
    return {
        "steps": len(batches),
        "documents": sum(len(batch.token_ids) for batch in batches),
        "tokens": sum(batch.tokens for batch in batches),
        "parameters": model.num_parameters(),
        "final_loss": float(torch.stack(tail).mean()),
    }


def _initialise(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.train()
    return model


def _batches(
    documents: Sequence[EncodedDocument],
    recipe: TrainingRecipe,
    pad_token_id: int,
    generator: torch.Generator,
) -> list[_Batch]:
    """Sort by length within buckets of several batches, so that little is padded, and shuffle."""
    size = recipe.batch_documents
    used = list(documents[: recipe.steps * size])
    bucket = size * _LENGTH_BUCKET_BATCHES
    ordered: list[EncodedDocument] = []
    for start in range(0, len(used), bucket):
        ordered += sorted(
            used[start : start + bucket], key=lambda document: len(document.token_ids)
        )
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    order = torch.randperm(len(batches), generator=generator).tolist()
    return [_collate(batches[index], pad_token_id) for index in order]


def _collate(documents: list[EncodedDocument], pad_token_id: int) -> _Batch:
    """Pad on the right: attention is causal, so padding needs a weight of 0 and no mask."""
    longest = max(len(document.token_ids) for document in documents)
    token_ids = torch.full((len(documents), longest), pad_token_id)
    weights = torch.zeros(len(documents), longest)
    for row, document in enumerate(documents):
        length = len(document.token_ids)
        token_ids[row, :length] = torch.tensor(document.token_ids)
        weights[row, :length] = torch.tensor(document.loss_weights)
    return _Batch(token_ids, weights, sum(len(document.token_ids) for document in documents))


def _optimizers(model: LlamaForCausalLM, recipe: TrainingRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and, undecayed, the norms."""
    embedding = model.get_input_embeddings().weight
    others = [parameter for parameter in model.parameters() if parameter is not embedding]
    matrices = [parameter for parameter in others if parameter.ndim == 2]
    norms = [parameter for parameter in others if parameter.ndim < 2]
    muon = BatchedMuon(
        matrices,
        lr=recipe.muon_lr,
        momentum=recipe.muon_momentum,
        weight_decay=recipe.weight_decay,
        iterations=recipe.muon_iterations,
    )
    adam = torch.optim.AdamW(
        [
            {"params": [embedding], "weight_decay": recipe.weight_decay},
            {"params": norms, "weight_decay": 0.0},
        ],
        lr=recipe.adam_lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return [muon, adam]


def _lr_factor(step: int, recipe: TrainingRecipe) -> float:
    """Return the learning rate's share of its peak: linear warm-up, then a cosine."""
    warmup = max(1, min(recipe.warmup_steps, recipe.steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, recipe.steps - warmup)
    low = recipe.final_lr_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def _step(
    model: LlamaForCausalLM,
    batch: _Batch,
    optimizers: list[torch.optim.Optimizer],
    lr_factor: float,
    max_grad_norm: float,
) -> Float[Tensor, ""]:
    logits = model(input_ids=batch.token_ids, use_cache=False).logits
    loss = _weighted_loss(logits, batch)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr_factor * group["peak_lr"]
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach()


def _gradients(model: LlamaForCausalLM, batches: Sequence[_Batch]) -> list[Tensor]:
    """Return what the first step and one of the longest batch would change the model by."""
    found: list[Tensor] = []
    for batch in (batches[0], max(batches, key=lambda one: one.token_ids.numel())):
        loss = _weighted_loss(model(input_ids=batch.token_ids, use_cache=False).logits, batch)
        found += torch.autograd.grad(loss, list(model.parameters()))
    return found + [orthogonalise(one[None], 1) for one in found if one.ndim == 2]


def _weighted_loss(
    logits: Float[Tensor, "document position vocabulary"], batch: _Batch
) -> Float[Tensor, ""]:
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.token_ids[:, 1:].flatten(), reduction="none"
    )
    weights = batch.loss_weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()
