"""Directions in which modules are pushed, and their scale.

A direction is a typed function and one entry of `DIRECTIONS`.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.statistics.probes import ProbeParams, fit_probes
from real_tasks.vocabulary.types import ModuleId

PROBE = ProbeParams(tolerance=1e-10)
"""Fitted so far that a probe's weights do not depend on the modules that are fitted beside it."""

Direction = Callable[
    [Sequence[ModuleId], Float[Tensor, "module sample d"], Int[Tensor, "sample"], int],
    Float[Tensor, "module d"],
]


def mean_difference(
    modules: Sequence[ModuleId],  # noqa: ARG001
    values: Float[Tensor, "module sample d"],
    labels: Int[Tensor, "sample"],
    seed: int,  # noqa: ARG001
) -> Float[Tensor, "module d"]:
    """Unit vector from the mean of the violating to the mean of the aligned (REAL, section 3.4)."""
    aligned = values[:, labels == 1].mean(dim=1)
    violating = values[:, labels == 0].mean(dim=1)
    return torch.nn.functional.normalize(aligned - violating, dim=-1)


def random_direction(
    modules: Sequence[ModuleId],
    values: Float[Tensor, "module sample d"],
    labels: Int[Tensor, "sample"],  # noqa: ARG001
    seed: int,
) -> Float[Tensor, "module d"]:
    """Unit vector drawn uniformly, from the seed and the module's identity alone."""
    draws = [_normal_draw(module, values.shape[-1], seed) for module in modules]
    return torch.nn.functional.normalize(torch.stack(draws).to(values), dim=-1)


def principal_component(
    modules: Sequence[ModuleId],  # noqa: ARG001
    values: Float[Tensor, "module sample d"],
    labels: Int[Tensor, "sample"],
    seed: int,  # noqa: ARG001
) -> Float[Tensor, "module d"]:
    """Unit vector along which the samples vary most, turned to where the aligned lie.

    It is the first principal component of the centred activations of all samples. Representation
    engineering (Zou et al. 2023, arXiv 2310.01405, section 3.1) takes that of differences between
    samples, and over all pairs these have twice the covariance of the samples themselves. The
    labels give the sign alone.
    """
    found = torch.stack([_widest_axis(module) for module in values.double()])
    gap = values[:, labels == 1].double().mean(dim=1) - values[:, labels == 0].double().mean(dim=1)
    backwards = torch.einsum("md,md->m", found, gap) < 0
    return torch.where(backwards[:, None], -found, found).to(values)


def probe_weights(
    modules: Sequence[ModuleId],  # noqa: ARG001
    values: Float[Tensor, "module sample d"],
    labels: Int[Tensor, "sample"],
    seed: int,  # noqa: ARG001
) -> Float[Tensor, "module d"]:
    """Unit vector along which a logistic probe's log-odds of an aligned answer rise fastest.

    The probe sees each activation in its own standard deviations, so that the penalty is the same
    for all; its weights are mapped back to the activations' units. This is ITI's "probe weight
    direction" (Li et al. 2023, arXiv 2306.03341, section 4), which there is fitted to activations
    as they are.

    Raises:
        UserInputError: a probe did not converge.
    """
    scale = values.double().std(dim=1, correction=0, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    standardised = (values.double() - values.double().mean(dim=1, keepdim=True)) / scale
    weights = fit_probes(standardised, labels, PROBE).weights / scale.squeeze(1)
    return torch.nn.functional.normalize(weights, dim=-1).to(values)


DIRECTIONS: dict[str, Direction] = {
    "mean_difference": mean_difference,
    "random": random_direction,
    "pca": principal_component,
    "probe": probe_weights,
}


def projection_sigma(
    values: Float[Tensor, "module sample d"], directions: Float[Tensor, "module d"]
) -> Float[Tensor, "module"]:
    """Standard deviation of the activations' projections on the direction, in activation units."""
    projections = torch.einsum("msd,md->ms", values, directions)
    return projections.std(dim=-1, correction=0)


def _widest_axis(values: Float[Tensor, "sample d"]) -> Float[Tensor, "d"]:
    centred = values - values.mean(dim=0)
    axes: Tensor = torch.linalg.eigh(centred.mT @ centred).eigenvectors
    return axes[:, -1]


def _normal_draw(module: ModuleId, d: int, seed: int) -> Tensor:
    name = f"{seed}/{module.kind}/{module.layer}/{module.head}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
    return torch.randn(d, generator=torch.Generator().manual_seed(number))
