"""Codebooks learned by moving averages, one a row, shared by the units of that row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.localizers.real.params import Params

SMOOTHING = 1e-5
CONSTANT_UNIT_PERPLEXITY = 1.1
"""A unit that uses fewer codes than this is constant. Without this test a codebook of constant
inputs would pass for a live one, since each unit has a code of its own."""


class Codebooks:
    """`code` vectors per row, nearest by squared Euclidean distance (method, section 3)."""

    def __init__(self, codes: Float[Tensor, "row code width"], params: Params) -> None:
        """Start from ``codes``."""
        self._params = params
        self._transposed = codes.mT.contiguous()
        self._sums = self._transposed.clone()
        self._counts = codes.new_ones(codes.shape[0], 1, codes.shape[1])
        self._offsets = torch.arange(codes.shape[0], device=codes.device)[:, None] * codes.shape[1]
        self._refresh()

    @property
    def codes(self) -> Float[Tensor, "row code width"]:
        """The code vectors."""
        return self._codes

    def _refresh(self) -> None:
        self._codes = self._transposed.mT.contiguous()
        self._squares = self._transposed.square().sum(1, keepdim=True)

    def nearest(self, vectors: Float[Tensor, "row n width"]) -> Int[Tensor, "row n"]:
        """Return the index of the code nearest to every vector."""
        distances = torch.baddbmm(self._squares, vectors, self._transposed, alpha=-2)
        return distances.argmin(2)

    def look_up(self, indices: Int[Tensor, "row n"]) -> Float[Tensor, "row n width"]:
        """Return the codes with these indices."""
        flat = self._codes.flatten(0, 1).index_select(0, (indices + self._offsets).flatten())
        return flat.view(*indices.shape, -1)

    def update(self, vectors: Float[Tensor, "row n width"], indices: Int[Tensor, "row n"]) -> None:
        """Move every code towards the mean of its vectors: EMA with Laplace smoothing."""
        n_codes = self._counts.shape[2]
        chosen = vectors.new_zeros(*indices.shape, n_codes).scatter_(2, indices[:, :, None], 1.0)
        step = 1 - self._params.codebook_decay
        self._counts.lerp_(chosen.sum(1, keepdim=True), step)
        self._sums.lerp_(torch.bmm(vectors.mT, chosen), step)
        total = self._counts.sum(2, keepdim=True)
        share = (self._counts + SMOOTHING) / (total + n_codes * SMOOTHING)
        torch.div(self._sums, share.mul_(total), out=self._transposed)
        self._refresh()

    def restart(
        self, dead: Float[Tensor, "row code"], vectors: Float[Tensor, "row code width"]
    ) -> None:
        """Replace the dead codes (marked by True) by ``vectors``."""
        chosen = dead[:, None, :]
        self._transposed = torch.where(chosen, vectors.mT, self._transposed)
        self._sums = torch.where(chosen, vectors.mT, self._sums)
        self._counts = self._counts.masked_fill(chosen, 1.0)
        self._refresh()


def code_use(
    indices: Int[Tensor, "row sample unit"], codebook_size: int
) -> Float[Tensor, "row unit code"]:
    """Count how often every unit uses every code."""
    rows, _, units = indices.shape
    bins = torch.arange(rows * units, device=indices.device).view(rows, 1, units) * codebook_size
    counts = torch.bincount((indices + bins).flatten(), minlength=rows * units * codebook_size)
    return counts.view(rows, units, codebook_size).float()


def perplexity(counts: Float[Tensor, "... code"]) -> Float[Tensor, "..."]:
    """Return exp(entropy) of code use, in codes; NaN where nothing was counted."""
    share = counts / counts.sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(share).sum(-1)
    return entropy.exp()


def is_collapsing(use: Float[Tensor, "row unit code"], threshold: float) -> Float[Tensor, "row"]:
    """Tell whether a codebook says little: few codes in use, or units that never change theirs."""
    few = perplexity(use.sum(1)) < threshold * use.shape[2]
    return few | (perplexity(use).mean(1) < CONSTANT_UNIT_PERPLEXITY)
