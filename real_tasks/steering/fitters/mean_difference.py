"""The difference of the class means (REAL, section 3.4; ITI's mass mean shift; CAA)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput


@FITTERS.register("mean_difference")
class MeanDifference(DirectionFitter):
    """Points from the mean of the violating to the mean of the aligned."""

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors."""
        return mean_difference(data.values, data.labels)


def mean_difference(
    values: Float[Tensor, "module sample d"], labels: Int[Tensor, "sample"]
) -> Float[Tensor, "module d"]:
    """Unit vector from the mean of the violating to the mean of the aligned."""
    aligned = values[:, labels == 1].mean(dim=1)
    violating = values[:, labels == 0].mean(dim=1)
    return torch.nn.functional.normalize(aligned - violating, dim=-1)
