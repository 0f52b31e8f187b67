"""What `real` takes: FLOPs and memory, from its parameters."""

import torch

from real_tasks.localizers.real.chunks import CHUNK_BYTES
from real_tasks.localizers.real.fitting import bytes_per_module
from real_tasks.localizers.real.params import Params
from real_tasks.localizers.real.plan import RELEASE_SCORED_SHARE, FitPlan

COPIES_OF_AN_EPOCH = 2
"""An epoch's inputs are gathered, and standardised into another tensor."""


def flops(params: Params, d: int, n_train: float) -> float:
    """Return the FLOPs of training one module of width ``d`` with `real`, all its fits.

    VQ-AE, per answer: its four affine maps have 3 d^2 weights; forward, weight gradient and input
    gradient take 2 FLOPs a weight each, but the first map's input needs no gradient: 16 d^2. To
    find codes and to update them takes codes x d each, similarities in the batch and their gradient
    batch x d each.

    Priors, per answer: at each position but the first 3 x 2 FLOPs for each of the GRU's 3 h^2
    recurrent weights, at each position 6 h x codes for the logits; per batch 6 x 3 h x embedding
    for each of codes + 1 entries of the table of inputs. Scoring, and a look at a few answers after
    every epoch, are left out.

    ``n_train`` are the training answers of the fold.
    """
    h, codes, units = params.prior_hidden, params.codebook_size, params.units
    fits, share = fits_of(params)
    autoencoder = 16 * d * d + 2 * d * (codes + params.batch_size)
    table = 18 * h * params.prior_embedding * (codes + 1) / params.batch_size
    prior = 18 * h * h * (units - 1) + 6 * h * codes * units + table
    per_answer = params.epochs * autoencoder + params.prior_epochs * _prior_share(params) * prior
    return fits * share * n_train * per_answer


def peak_bytes(params: Params, d: int, n_modules: int, n_train: float, n_seen: float) -> int:
    """Estimate the peak memory of `real` on a shard of modules, on an accelerator.

    The activations of all answers seen, an epoch's inputs for every fit, twice, and what a
    training step keeps; good to a factor of two, since an allocator's slack is not counted. On a
    CPU chunks are smaller, and so is the peak.
    """
    fits, share = fits_of(params)
    nothing = torch.empty(0, dtype=torch.int64)
    of_fits = FitPlan((nothing,) * fits, ((nothing, nothing),) * fits, (nothing,) * fits)
    step = bytes_per_module(d, of_fits, params)
    chunk = min(n_modules, max(1, CHUNK_BYTES["cuda"] // step))
    values = n_modules * n_seen * d * torch.float32.itemsize
    epoch = COPIES_OF_AN_EPOCH * chunk * fits * share * n_train * d * torch.float32.itemsize
    return round(values + epoch + chunk * step)


def fits_of(params: Params) -> tuple[int, float]:
    """Return how many fits a module gets, and which share of the training answers each sees."""
    if params.protocol == "release":
        return 1, 1.0
    return params.cross_folds, 1 - 1 / params.cross_folds


def _prior_share(params: Params) -> float:
    """Share of a fit's answers that its priors see."""
    return 1 - RELEASE_SCORED_SHARE if params.protocol == "release" else 1.0
