"""The difference within pairs: what tells the two apart, and nothing that they share."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from real_tasks.steering.axes import turned, widest_axes
from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError


@FITTERS.register("paired_difference")
class PairedDifference(DirectionFitter):
    """Points from the violating to the aligned of a pair.

    The mean is that of CAA (Rimsky et al. 2024, arXiv 2312.06681); the principal component is that
    of representation engineering (Zou et al. 2023, arXiv 2310.01405): of the differences as they
    are, not centred, turned to the side of their mean.
    """

    class Params(Frozen):
        """Parameters of the fitter."""

        by: Literal["mean", "pca"] = Field(
            "mean", description="mean of the differences, or their first principal component"
        )

    asks = frozenset({"pairs"})

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors.

        Raises:
            UserInputError: no training sample has a partner.
        """
        differences = paired_differences(data)
        found = differences.mean(dim=1)
        if self.params.by == "pca":
            found = turned(widest_axes(differences), found)
        return torch.nn.functional.normalize(found, dim=-1).to(data.values)


def paired_differences(data: FitterInput) -> Float[Tensor, "module pair d"]:
    """Return the aligned less the violating of every pair, float64.

    Raises:
        UserInputError: no training sample has a partner.
    """
    aligned = [
        place
        for place, partner in enumerate(data.pairs)
        if partner >= 0 and data.labels[place] == 1
    ]
    if not aligned:
        raise UserInputError("no training question has a pair; add a field pair to more of them")
    values = data.values.double()
    return values[:, aligned] - values[:, [data.pairs[place] for place in aligned]]
