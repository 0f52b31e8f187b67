"""The first principal component of the samples, turned to where the aligned lie."""

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput


@FITTERS.register("pca")
class PrincipalComponent(DirectionFitter):
    """Points along which the samples vary most, to the side of the aligned.

    It is the first principal component of the centred activations of all samples. Representation
    engineering (Zou et al. 2023, arXiv 2310.01405, section 3.1) takes that of differences between
    samples, and over all pairs these have twice the covariance of the samples themselves. The
    labels give the sign alone.
    """

    label = "PCA direction"

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors."""
        values, labels = data.values.double(), data.labels
        found = torch.stack([_widest_axis(module) for module in values])
        gap = values[:, labels == 1].mean(dim=1) - values[:, labels == 0].mean(dim=1)
        backwards = torch.einsum("md,md->m", found, gap) < 0
        return torch.where(backwards[:, None], -found, found).to(data.values)


def _widest_axis(values: Float[Tensor, "sample d"]) -> Float[Tensor, "d"]:
    centred = values - values.mean(dim=0)
    axes: Tensor = torch.linalg.eigh(centred.mT @ centred).eigenvectors
    return axes[:, -1]
