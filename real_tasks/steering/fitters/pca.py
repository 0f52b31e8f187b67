"""The first principal component of the samples, turned to where the aligned lie."""

from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.steering.axes import turned, widest_axes
from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput


@FITTERS.register("pca")
class PrincipalComponent(DirectionFitter):
    """Points along which the samples vary most, to the side of the aligned.

    It is the first principal component of the centred activations of all samples. Representation
    engineering (Zou et al. 2023, arXiv 2310.01405, section 3.1) takes that of differences between
    samples, and over all pairs these have twice the covariance of the samples themselves. The
    labels give the sign alone.
    """

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors."""
        return principal_component(data.values, data.labels)


def principal_component(
    values: Float[Tensor, "module sample d"], labels: Int[Tensor, "sample"]
) -> Float[Tensor, "module d"]:
    """First principal component of the centred samples, turned to the side of the aligned."""
    exact = values.double()
    found = widest_axes(exact - exact.mean(dim=1, keepdim=True))
    gap = exact[:, labels == 1].mean(dim=1) - exact[:, labels == 0].mean(dim=1)
    return turned(found, gap).to(values)
