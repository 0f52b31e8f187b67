"""What the ablation of REAL tries and the product does not have: each a field of `Variant`."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.localizers.real import fit_shard, fitting
from real_tasks.localizers.real.codebook import Codebooks
from real_tasks.localizers.real.contrastive import pair_weights
from real_tasks.localizers.real.fitting import ShardProgram
from real_tasks.localizers.real.parameters import Affine, ParameterBlock
from real_tasks.localizers.real.params import Params
from real_tasks.localizers.real.plan import FitPlan
from real_tasks.localizers.real.prior import Priors
from real_tasks.localizers.real.vqae import Autoencoders, VqaeStart
from real_tasks.localizers.seeding import generator
from real_tasks.vocabulary.types import LocalizerInput

STEPS_BETWEEN_LOOKS = 6


class Variant(Params):
    """REAL's parameters, and what only the ablation changes.

    Attributes:
        seed, seeds: the first seed, and over how many the scores are averaged.
        stop_autoencoder, stop_priors: keep the weights that did best on held-out questions: the
            VQ-AE's by its loss, after each epoch; the priors' by their likelihood.
        shared, by: what heads have in common, and which heads do.
        whitening: share of the identity in the correlation matrix that inputs are whitened by.
        input_dropout, hidden_dropout: of the encoder.
    """

    seed: int = 0
    seeds: int = 1
    stop_autoencoder: bool = False
    stop_priors: bool = False
    shared: Literal["nothing", "codebook", "autoencoder"] = "nothing"
    by: Literal["layer", "all"] = "layer"
    whitening: float = 1.0
    input_dropout: float = 0.0
    hidden_dropout: float = 0.0


def scores_of(
    data: LocalizerInput, held: Tensor, plan: FitPlan, params: Variant, seed: int
) -> Tensor:
    """Return the scores [fit, module, sample]; ``held`` are the held-out samples' places."""
    product = params.model_dump(include={*Params.model_fields, "seed", "seeds"})
    if params == Variant.model_validate(product):
        return fit_shard(data, plan, params, seed).scores
    parts: dict[int | None, list[int]] = {}
    for place, module in enumerate(data.modules):
        parts.setdefault(module.layer if params.by == "layer" else None, []).append(place)
    with torch.no_grad():
        programs = (VariantProgram(data, held, part, plan, params, seed) for part in parts.values())
        return torch.cat([program.run(data.labels).scores for program in programs], dim=1)


class VariantProgram(ShardProgram):
    """Fits the heads at the places ``part``, which share what is shared."""

    def __init__(
        self,
        data: LocalizerInput,
        held: Tensor,
        part: list[int],
        plan: FitPlan,
        params: Variant,
        seed: int,
    ) -> None:
        super().__init__(data.values[part], [data.modules[i] for i in part], plan, params, seed)
        self._variant, self._held, self._held_labels = params, held, data.labels[held]
        self._whitener: Tensor | None = None
        if params.whitening < 1:
            fits = enumerate(plan.autoencoder)
            self._whitener = torch.cat([self._whiteners(fit, samples) for fit, samples in fits])

    def _whiteners(self, fit: int, samples: Tensor) -> Tensor:
        share, fits = self._variant.whitening, len(self._plan.autoencoder)
        x = self._inputs(samples.expand(fits, -1)).unflatten(0, (fits, -1))[fit]
        values, vectors = torch.linalg.eigh(x.mT @ x / x.shape[1])
        scale = (values.clamp(min=0) * (1 - share) + share).rsqrt()
        return vectors * scale[:, None] @ vectors.mT

    def _inputs(self, index: Tensor) -> Tensor:
        x = super()._inputs(index)
        return x if self._whitener is None else torch.bmm(x, self._whitener)

    def _train_autoencoders(self, labels: Tensor) -> Autoencoders:
        held = self._inputs(self._held.expand(len(self._plan.autoencoder), -1))
        pairs = pair_weights(self._held_labels)
        make = partial(VariantAutoencoders, heads=len(self._modules), held=held, pairs=pairs)
        with patch.object(fitting, "Autoencoders", make):
            return super()._train_autoencoders(labels)

    def _train_priors(self, codes: Tensor) -> Priors:
        if not self._variant.stop_priors:
            return super()._train_priors(codes)
        pools = [self._held[self._held_labels == label] for label in (0, 1)]
        held = torch.cat([codes[:, :, pool[: min(map(len, pools))]] for pool in pools])
        with patch.object(fitting, "Priors", partial(StoppedPriors, held=held)):
            priors = super()._train_priors(codes)
        assert isinstance(priors, StoppedPriors)
        priors.best.restore(priors.block.values)
        return priors


class Best:
    """Keeps the values of every row at the look with the smallest held-out loss."""

    def __init__(self) -> None:
        self._loss = torch.tensor(torch.inf)
        self._kept: Mapping[str, Tensor] = {}

    def look(self, loss: Tensor, values: Mapping[str, Tensor]) -> None:
        """Keep the values [row, ., .] of the rows whose loss is smaller than ever."""
        better = loss < self._loss
        self._loss = torch.where(better, loss, self._loss)
        self._kept = {
            name: torch.where(better[:, None, None], value, self._kept.get(name, value))
            for name, value in values.items()
        }

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Write the kept values over ``values``."""
        for name, value in values.items():
            value.copy_(self._kept[name])


class StoppedPriors(Priors):
    """Priors of which `best` keeps the weights under which the held-out codes are likeliest."""

    def __init__(self, *arguments: Any, held: Tensor) -> None:
        super().__init__(*arguments)
        self.best, self._held, self._steps = Best(), held, 0

    def step(self, codes: Tensor) -> None:
        super().step(codes)
        self._steps += 1
        if self._steps % STEPS_BETWEEN_LOOKS == 0:
            self.best.look(-self.log_probability(self._held).mean(1), self.block.values)


class VariantAutoencoders(Autoencoders):
    """VQ-AEs of which ``heads`` rows that follow each other may share codebook and weights."""

    def __init__(
        self,
        starts: Sequence[VqaeStart],
        params: Variant,
        device: torch.device,
        *,
        heads: int,
        held: Tensor,
        pairs: Tensor,
    ) -> None:
        super().__init__(starts, params, device)
        self._variant, self._held, self._pairs, self._best = params, held, pairs, Best()
        if params.shared != "nothing":
            self.codebooks = SharedCodebooks(self.codebooks.codes, params, heads)
        self._heads = heads if params.shared == "autoencoder" else 1
        _share(self.block.values, self._heads, mean=False)
        source = generator(params.seed, "dropout")
        self._enter = Dropping(self.block, "enter", params.input_dropout, source)
        self._compress = Dropping(self.block, "compress", params.hidden_dropout, source)

    def step(self, x: Tensor, pairs: Tensor) -> Tensor:
        self._enter.on = self._compress.on = True
        codes = super().step(x, pairs)
        self._enter.on = self._compress.on = False
        return codes

    def _encoder_gradient(self, x: Tensor, entered: Tensor, grad: Tensor) -> None:
        super()._encoder_gradient(x, entered, grad)
        _share(self.block.grads, self._heads, mean=True)

    def end_epoch(self, epoch: int, codes: Tensor, x: Tensor) -> None:
        kept = {**self.block.values, "codes": self.codebooks._transposed}
        if self._variant.stop_autoencoder:
            self._best.look(self._held_loss(), kept)
        super().end_epoch(epoch, codes, x)
        if self._variant.stop_autoencoder and epoch + 1 == self._params.epochs:
            self._best.restore(kept)
            self.codebooks._refresh()

    def _held_loss(self) -> Tensor:
        x, params = self._held, self._params
        z = self.encode(x)
        latents = self.quantise(z)[1]
        units = normalize(latents, dim=2)
        similarity = torch.bmm(units, units.mT).div_(params.temperature)
        similarity.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        likelihood = similarity.log_softmax(2)
        likelihood.diagonal(dim1=1, dim2=2).zero_()
        return (
            (self.decode(latents) - x).square().mean((1, 2))
            + params.commitment_weight * (z - latents).square().mean((1, 2))
            - params.contrastive_weight * (likelihood * self._pairs).sum((1, 2))
        )


class SharedCodebooks(Codebooks):
    """One codebook for ``heads`` rows that follow each other."""

    def __init__(self, codes: Tensor, params: Params, heads: int) -> None:
        self._heads = heads
        super().__init__(codes[::heads].contiguous(), params)

    @property
    def codes(self) -> Tensor:
        return self._codes.repeat_interleave(self._heads, 0)

    def nearest(self, vectors: Tensor) -> Tensor:
        return super().nearest(self._joined(vectors)).view(vectors.shape[:2])

    def look_up(self, indices: Tensor) -> Tensor:
        return super().look_up(self._joined(indices)).view(*indices.shape, -1)

    def update(self, vectors: Tensor, indices: Tensor) -> None:
        super().update(self._joined(vectors), self._joined(indices))

    def restart(self, dead: Tensor, vectors: Tensor) -> None:
        # A code is dead if no head uses it, and starts from one head after the other.
        code = torch.arange(vectors.shape[1])
        drawn = vectors.unflatten(0, (-1, self._heads))[:, code % self._heads, code]
        super().restart(dead.unflatten(0, (-1, self._heads)).all(1), drawn)

    def _joined(self, rows: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, self._heads)).flatten(1, 2)


class Dropping(Affine):
    """A map that drops a share of its inputs while it is ``on``."""

    def __init__(
        self, block: ParameterBlock, name: str, share: float, source: torch.Generator
    ) -> None:
        super().__init__(block, name)
        self._share, self._source, self.on = share, source, False
        self._scale: Tensor | float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        if not self.on or not self._share:
            return super().__call__(x)
        kept = torch.rand(x.shape, generator=self._source) >= self._share
        self._scale = kept / (1 - self._share)
        return super().__call__(x * self._scale)

    def store_gradient(self, x: Tensor, grad: Tensor) -> None:
        super().store_gradient(x * self._scale, grad)

    def input_gradient(self, grad: Tensor) -> Tensor:
        return super().input_gradient(grad) * self._scale


def _share(values: Mapping[str, Tensor], heads: int, *, mean: bool) -> None:
    """Give ``heads`` rows that follow each other their mean, or what the first has."""
    for value in values.values() if heads > 1 else ():
        rows = value.unflatten(0, (-1, heads))
        rows.copy_((rows.mean(1, keepdim=True) if mean else rows[:, :1]).expand_as(rows).clone())
