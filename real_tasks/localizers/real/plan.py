"""Which samples every fit trains on, which it scores, and in which order it sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from real_tasks.localizers.seeding import generator
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import LocalizerInput

RELEASE_SCORED_SHARE = 0.2


@dataclass(frozen=True)
class FitPlan:
    """The samples of every fit, as indices into the input's samples; the same for all modules.

    Attributes:
        autoencoder: per fit, the samples that its VQ-AE trains on.
        priors: per fit, the samples that its violating and its aligned prior train on.
        scored: per fit, the samples whose scores count; no sample is in two fits.
        shifted: whether a prior predicts a code from the codes before it; the release feeds it the
            very code that it has to predict.
    """

    autoencoder: tuple[Int[Tensor, "sample"], ...]
    priors: tuple[tuple[Int[Tensor, "violating"], Int[Tensor, "aligned"]], ...]
    scored: tuple[Int[Tensor, "scored"], ...]
    shifted: bool = True


def cross_fit_plan(data: LocalizerInput, folds: int, seed: int) -> FitPlan:
    """Cut the training questions into ``folds`` parts; each fit scores one and trains on the rest.

    Raises:
        UserInputError: fewer training questions than folds, or a fit without one of the labels.
    """
    labels, questions, train = data.labels.cpu(), data.questions.cpu(), data.train.cpu()
    unique = questions[train].unique()
    if len(unique) < folds:
        raise UserInputError(
            f"{len(unique)} training questions cannot be cut into cross_folds={folds}; "
            f"give more questions or set cross_folds to at most {len(unique)}"
        )
    shuffled = unique[torch.randperm(len(unique), generator=generator(seed, "cross_folds"))]
    parts = [torch.isin(questions, part) for part in shuffled.tensor_split(folds)]
    fitted = tuple((train & ~part).nonzero().squeeze(1) for part in parts)
    return FitPlan(
        autoencoder=fitted,
        priors=tuple(_by_label(samples, labels) for samples in fitted),
        scored=tuple((train & part).nonzero().squeeze(1) for part in parts),
    )


def release_plan(data: LocalizerInput, seed: int) -> FitPlan:
    """Return the plan of the published code, its defects included.

    One VQ-AE is fitted, with labels, on all training answers. The *answers* are permuted and the
    last 20 % are scored by priors fitted on the others: the VQ-AE has seen every scored answer, and
    answers of one question stand on both sides. The priors are not shifted.
    """
    labels, samples = data.labels.cpu(), data.train.cpu().nonzero().squeeze(1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(samples)))
    n_scored = max(1, round(len(samples) * RELEASE_SCORED_SHARE))
    scored, fitted = samples[order[-n_scored:]], samples[order[:-n_scored]]
    return FitPlan((samples,), (_by_label(fitted, labels),), (scored.sort().values,), shifted=False)


def _by_label(samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    violating, aligned = (samples[labels[samples] == label] for label in (0, 1))
    if not len(violating) or not len(aligned):
        raise UserInputError(
            f"a fit would train on {len(aligned)} aligned and {len(violating)} violating answers; "
            "it needs both: give more questions or use another number of folds"
        )
    return violating, aligned


def batch_stream(
    pools: Sequence[Int[Tensor, "sample"]], epochs: int, batch_size: int, *key: int | str
) -> Int[Tensor, "epoch pool step batch"]:
    """Draw the batches of fits that train side by side on pools of different size.

    Each pool is passed through in a fresh permutation again and again, and cut into batches without
    a gap, so no sample waits for the next epoch. Every fit takes the same number of steps: those of
    an average epoch. ``key`` seeds the draw; pools differ by their position.
    """
    batch = min(batch_size, *(len(pool) for pool in pools))
    steps = max(1, sum(len(pool) for pool in pools) // len(pools) // batch)
    length = epochs * steps * batch
    streams = []
    for position, pool in enumerate(pools):
        source = generator(*key, position)
        rounds = -(-length // len(pool))
        passes = [pool[torch.randperm(len(pool), generator=source)] for _ in range(rounds)]
        streams.append(torch.cat(passes)[:length].view(epochs, steps, batch))
    return torch.stack(streams, dim=1)
