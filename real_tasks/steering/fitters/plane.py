"""A plane to turn in (after Angular and Selective Steering, arXiv 2601.19375)."""

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.statistics.axes import widest_axes
from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.steering.fitters.mean_difference import mean_difference


@FITTERS.register("plane")
class Plane(Fitter):
    """Spanned by the difference of the class means and by what else the samples vary along most.

    The second vector is the first principal component of the centred activations without their
    component along the first; its sign is that of its largest number. The paper takes the
    components of the directions of all layers, so that all layers share a plane; here each module
    has its own.
    """

    gives = ("plane",)

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return two orthonormal vectors a module, ``[module, 2, d]``."""
        first = mean_difference(data.values, data.labels).double()
        centred = data.values.double() - data.values.double().mean(dim=1, keepdim=True)
        along = torch.einsum("msd,md->ms", centred, first)
        rest = centred - along[..., None] * first[:, None]
        second = widest_axes(rest)
        second = second - (second * first).sum(-1, keepdim=True) * first
        second = torch.nn.functional.normalize(second, dim=-1)
        largest = second.gather(1, second.abs().argmax(dim=1, keepdim=True))
        return {"plane": torch.stack([first, second * largest.sign()], dim=1).to(data.values)}
