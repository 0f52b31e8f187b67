"""How well scores rank aligned answers above violating ones, for many modules at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.vocabulary.types import ModuleId, ModuleScore

INTERVAL = (0.025, 0.975)
"""Quantiles of the 95 % interval."""


@dataclass(frozen=True)
class RankingMetrics:
    """Metrics of every module; `roc_auc_low` and `roc_auc_high` bound the 95 % interval."""

    roc_auc: Float[Tensor, "module"]
    roc_auc_low: Float[Tensor, "module"]
    roc_auc_high: Float[Tensor, "module"]
    aupr: Float[Tensor, "module"]
    f1: Float[Tensor, "module"]


def ranking_metrics(
    scores: Float[Tensor, "module sample"],
    labels: Int[Tensor, "sample"],
    questions: Int[Tensor, "sample"],
    bootstrap_samples: int,
    generator: torch.Generator,
) -> RankingMetrics:
    """Return all metrics; both labels must occur. ``generator`` draws the questions, on the CPU."""
    scores, labels, questions = scores.cpu().double(), labels.cpu(), questions.cpu()
    low, high = bootstrap_roc_auc(scores, labels, questions, bootstrap_samples, generator)
    aupr, f1 = precision_recall(scores, labels)
    return RankingMetrics(roc_auc(scores, labels), low, high, aupr, f1)


def scored_modules(
    modules: Sequence[ModuleId], score: Tensor, metrics: RankingMetrics, **further: Tensor
) -> tuple[ModuleScore, ...]:
    """Return each module with its score, metrics, and further columns of `ModuleScore`."""
    columns = {"score": score, **vars(metrics), **further}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return tuple(
        ModuleScore(module, **dict(zip(columns, row, strict=True)))
        for module, row in zip(modules, rows, strict=True)
    )


def roc_auc(
    scores: Float[Tensor, "module sample"], labels: Int[Tensor, "sample"]
) -> Float[Tensor, "module"]:
    """Return the chance that an aligned answer scores above a violating one; ties count half."""
    negative = scores[:, labels == 0].sort(dim=1).values
    positive = scores[:, labels == 1].contiguous()
    below = torch.searchsorted(negative, positive)
    not_above = torch.searchsorted(negative, positive, right=True)
    return (below + not_above).double().mean(dim=1) / (2 * negative.shape[1])


def precision_recall(
    scores: Float[Tensor, "module sample"], labels: Int[Tensor, "sample"]
) -> tuple[Float[Tensor, "module"], Float[Tensor, "module"]]:
    """Return the average precision and the best F1 over all thresholds.

    Equal scores share a threshold. The average precision is the step-wise area under the
    precision-recall curve, without interpolation.
    """
    falling, order = scores.sort(dim=1, descending=True)
    ascending = -falling.contiguous()
    flagged = torch.searchsorted(ascending, ascending, right=True)
    found = labels[order].double()
    hits = found.cumsum(dim=1).take_along_dim(flagged - 1, dim=1)
    n_aligned = found.sum(dim=1, keepdim=True)
    aupr = (found * hits / flagged).sum(dim=1) / n_aligned.squeeze(1)
    f1 = (2 * hits / (flagged + n_aligned)).amax(dim=1)
    return aupr, f1


def bootstrap_roc_auc(
    scores: Float[Tensor, "module sample"],
    labels: Int[Tensor, "sample"],
    questions: Int[Tensor, "sample"],
    n_samples: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "module"], Float[Tensor, "module"]]:
    """Return the 95 % percentile interval of the ROC-AUC when whole questions are drawn again.

    All modules share the draws. A draw without both labels, rare but for a handful of questions,
    has no ROC-AUC and is left out.
    """
    unique, question = questions.unique(return_inverse=True)
    n = len(unique)
    drawn = torch.randint(n, (n_samples, n), generator=generator)
    copies = torch.zeros(n_samples, n, dtype=scores.dtype)
    copies.scatter_add_(1, drawn, torch.ones_like(copies))
    aligned = question[labels == 1].bincount(minlength=n).to(scores.dtype)
    violating = question[labels == 0].bincount(minlength=n).to(scores.dtype)
    pairs = (copies @ aligned) * (copies @ violating)
    intervals = []
    for module in scores:
        wins = _wins_between_questions(module, labels, question, n)
        auc = ((copies @ wins) * copies).sum(dim=1) / pairs
        intervals.append(auc[pairs > 0].quantile(auc.new_tensor(INTERVAL)))
    low, high = torch.stack(intervals, dim=1)
    return low, high


def _wins_between_questions(
    scores: Float[Tensor, "sample"], labels: Tensor, question: Tensor, n: int
) -> Float[Tensor, "question question"]:
    """Count the pairs that a question's aligned answers win against a question's violating ones."""
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    won = difference.sign_().add_(1).mul_(0.5)
    by_aligned = won.new_zeros(n, won.shape[1]).index_add_(0, question[labels == 1], won)
    return won.new_zeros(n, n).index_add_(1, question[labels == 0], by_aligned)
