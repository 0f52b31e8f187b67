"""Gains for the single dimensions whose pairs agree most (AUSteer, arXiv 2602.04428)."""

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.steering.fitters.paired_difference import paired_differences
from real_tasks.vocabulary.config import Frozen


@FITTERS.register("momentum")
class Momentum(Fitter):
    """Gives gains to the dimensions, of all layers, that pairs move one way most often.

    A dimension's momentum is the larger share of the pairs whose aligned answer has more of it, or
    less; it is positive in the first case, negative in the second. The dimensions of the largest,
    whichever its sign, have it as their gain, all others one of 0. Between dimensions whose pairs
    agree as often, the larger mean difference in standard deviations of the differences goes first.
    """

    class Params(Frozen):
        """Parameters of the fitter."""

        dimensions: PositiveInt = Field(
            10, description="how many dimensions of all layers together are scaled"
        )

    gives = ("gains", "momentum", "mean_sign")
    asks = frozenset({"pairs"})
    all_layers = True

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return the tensors, a number a dimension.

        ``momentum`` is that of all dimensions; ``mean_sign`` the sign of the mean aligned
        activation: where it is not positive, a gain above 0 moves away from zero and so down.

        Raises:
            UserInputError: no training sample has a partner.
        """
        differences = paired_differences(data)
        more, less = ((sign * differences > 0).double().mean(dim=1) for sign in (1, -1))
        momentum = torch.where(more > less, more, torch.where(less > more, -less, 0.0))
        spread = differences.std(dim=1, correction=0)
        steadiness = (differences.mean(dim=1).abs() / spread).nan_to_num(0.0, posinf=1e300)
        by_steadiness = steadiness.flatten().argsort(descending=True, stable=True)
        agreement = momentum.abs().flatten()[by_steadiness]
        first = by_steadiness[agreement.argsort(descending=True, stable=True)]
        kept = first[: self.params.dimensions]
        gains = torch.zeros_like(momentum)
        gains.view(-1)[kept] = momentum.view(-1)[kept]
        means = data.values[:, data.labels == 1].double().mean(dim=1)
        found = {"gains": gains, "momentum": momentum, "mean_sign": means.sign()}
        return {name: tensor.to(data.values) for name, tensor in found.items()}
