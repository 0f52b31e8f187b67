"""Fits VQ-AEs and priors to modules and scores every sample: rows are [fit * module] throughout."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from real_tasks.localizers.real.contrastive import pair_weights
from real_tasks.localizers.real.params import Params
from real_tasks.localizers.real.plan import FitPlan, batch_stream
from real_tasks.localizers.real.prior import Priors, prior_weights
from real_tasks.localizers.real.vqae import Autoencoders, vqae_start
from real_tasks.localizers.seeding import module_generator
from real_tasks.vocabulary.types import ModuleId

SAMPLES_PER_BLOCK = 256
SEQUENCES_PER_BLOCK = 64
SMALLEST_RELATIVE_DEVIATION = 1e-6
"""Inputs that vary less than this, relative to their mean, are rounding noise of a constant."""


@dataclass(frozen=True)
class ShardFit:
    """What every fit says about every sample, those it was trained on included.

    Attributes:
        scores: log p_aligned - log p_violating, per code, in nats.
        reconstruction: mean squared error of the (standardised) input.
        codes: code indices.
        latents: quantised latents of fit 0.
        collapsed: whether the codebook had collapsed at the end of the training.
    """

    scores: Float[Tensor, "fit module sample"]
    reconstruction: Float[Tensor, "fit module sample"]
    codes: Int[Tensor, "fit module sample unit"]
    latents: Float[Tensor, "module sample latent"]
    collapsed: Bool[Tensor, "fit module"]


class ShardProgram:
    """All fits of a shard of modules as one batched program.

    What is drawn for a fit of a module depends on the seed, the module and the fit only; the order
    of the samples on the seed and the fit.
    """

    def __init__(
        self,
        values: Float[Tensor, "module sample d"],
        modules: Sequence[ModuleId],
        plan: FitPlan,
        params: Params,
        seed: int,
    ) -> None:
        """Take the shard's activations of all samples, on the device to compute on."""
        self._values, self._modules = values, modules
        self._plan, self._params, self._seed = plan, params, seed
        self._mean, self._inverse = self._scales()

    def run(self, labels: Int[Tensor, "sample"]) -> ShardFit:
        """Train everything and score every sample."""
        autoencoders = self._train_autoencoders(labels)
        codes, latents, reconstruction = self._encode(autoencoders)
        scores = self._score(self._train_priors(codes), codes)
        fits = len(self._plan.autoencoder)
        return ShardFit(
            scores=rearrange(scores, "(fit module) sample -> fit module sample", fit=fits),
            reconstruction=rearrange(
                reconstruction, "(fit module) sample -> fit module sample", fit=fits
            ),
            codes=rearrange(codes, "(fit module) unit sample -> fit module sample unit", fit=fits),
            latents=latents,
            collapsed=autoencoders.collapsed.view(fits, -1),
        )

    def _scales(self) -> tuple[Tensor, Tensor]:
        """Return mean and inverse deviation [fit, module, 1, d] of every fit's training part."""
        modules, _, d = self._values.shape
        fits = len(self._plan.autoencoder)
        mean = self._values.new_zeros(fits, modules, 1, d)
        inverse = torch.ones_like(mean)
        if not self._params.standardise:
            return mean, inverse
        for fit, samples in enumerate(self._plan.autoencoder):
            part = self._values[:, samples.to(self._values.device)]
            deviation, mean[fit] = torch.std_mean(part, 1, correction=0, keepdim=True)
            constant = deviation <= SMALLEST_RELATIVE_DEVIATION * mean[fit].abs()
            inverse[fit] = torch.where(constant, 0.0, 1 / deviation)
        return mean, inverse

    def _inputs(self, index: Int[Tensor, "fit sample"]) -> Float[Tensor, "row sample d"]:
        """Gather samples, each fit its own, and standardise them."""
        fits, samples = index.shape
        gathered = self._values.index_select(1, index.flatten().to(self._values.device))
        gathered = gathered.view(len(self._modules), fits, samples, -1).transpose(0, 1)
        return torch.sub(gathered, self._mean).mul_(self._inverse).flatten(0, 1)

    def _generators(self, purpose: str) -> list[torch.Generator]:
        fits = range(len(self._plan.autoencoder))
        return [
            module_generator(self._seed, module, fit, purpose)
            for fit in fits
            for module in self._modules
        ]

    def _train_autoencoders(self, labels: Tensor) -> Autoencoders:
        params, plan, device = self._params, self._plan, self._values.device
        stream = batch_stream(
            plan.autoencoder, params.epochs, params.batch_size, self._seed, "autoencoder"
        )
        first = self._first_samples()
        starts = [
            vqae_start(self._values.shape[2], first.shape[1], params, source)
            for source in self._generators("autoencoder")
        ]
        autoencoders = Autoencoders(starts, params, device)
        restart_samples = self._inputs(first)
        if params.codebook_init == "data":
            autoencoders.start_codes_from_data(restart_samples)
        pairs = pair_weights(labels[stream.to(device)])
        for epoch, batches in enumerate(stream):
            inputs = self._inputs(batches.flatten(1)).unflatten(1, batches.shape[1:])
            used = [
                autoencoders.step(inputs[:, step], pairs[epoch, :, step])
                for step in range(batches.shape[1])
            ]
            autoencoders.end_epoch(epoch, torch.cat(used, dim=1), restart_samples)
        return autoencoders

    def _first_samples(self) -> Int[Tensor, "fit sample"]:
        """Choose the samples whose encoded groups codes start from: twice as many as needed."""
        params, pools = self._params, self._plan.autoencoder
        wanted = max(params.batch_size, -(-2 * params.codebook_size // params.units))
        n = min(wanted, *(len(pool) for pool in pools))
        return batch_stream(pools, 1, n, self._seed, "restarts")[0, :, 0]

    def _encode(self, autoencoders: Autoencoders) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes [row, unit, sample], latents of fit 0, and reconstruction errors."""
        codes, latents, errors = [], [], []
        fits = len(self._plan.autoencoder)
        for block in torch.arange(self._values.shape[1]).split(SAMPLES_PER_BLOCK):
            x = self._inputs(block.expand(fits, -1))
            indices, quantised = autoencoders.quantise(autoencoders.encode(x))
            codes.append(indices.mT)
            latents.append(quantised[: len(self._modules)])
            errors.append((autoencoders.decode(quantised) - x).square_().mean(2))
        return torch.cat(codes, 2), torch.cat(latents, 1), torch.cat(errors, 1)

    def _train_priors(self, codes: Int[Tensor, "row unit sample"]) -> Priors:
        """Fit the priors; their rows are [label * fit * module]."""
        params, device = self._params, codes.device
        weights = [
            prior_weights(params, source)
            for purpose in ("violating prior", "aligned prior")
            for source in self._generators(purpose)
        ]
        priors = Priors(weights, params, self._plan.shifted, device)
        pools = [pair[label] for label in (0, 1) for pair in self._plan.priors]
        stream = batch_stream(pools, params.prior_epochs, params.batch_size, self._seed, "priors")
        by_fit = codes.unflatten(0, (len(self._plan.priors), -1))
        for batches in stream.to(device):
            for step in range(batches.shape[1]):
                priors.step(_gather_samples(by_fit, batches[:, step]))
        return priors

    def _score(self, priors: Priors, codes: Tensor) -> Float[Tensor, "row sample"]:
        blocks = []
        for block in codes.split(SEQUENCES_PER_BLOCK, dim=2):
            violating, aligned = priors.log_probability(block.repeat(2, 1, 1)).chunk(2)
            blocks.append(aligned - violating)
        return torch.cat(blocks, dim=1)


def _gather_samples(codes: Tensor, samples: Tensor) -> Tensor:
    """Gather codes [fit, module, unit, sample] by samples [label * fit, batch]: priors' rows."""
    fits, modules, units, _ = codes.shape
    index = samples.view(-1, fits, 1, 1, samples.shape[1]).expand(-1, -1, modules, units, -1)
    labels = index.shape[0]
    return codes.expand(labels, *codes.shape).gather(4, index).flatten(0, 2)


def bytes_per_module(d: int, plan: FitPlan, params: Params) -> int:
    """Estimate the memory that a training step of one module sweeps, all fits together."""
    hidden, width = params.prior_hidden, params.prior_embedding
    autoencoder = 3 * d * d
    gru = 3 * hidden * (hidden + width) + (width + hidden) * params.codebook_size
    kept = 8 * hidden * params.units * params.batch_size
    # Weights, gradients and two moments of Adam.
    floats = max(4 * autoencoder, 2 * (4 * gru + kept))
    return 4 * floats * len(plan.autoencoder)
