"""Directions in which modules are pushed, and their scale.

A direction is a typed function and one entry of `DIRECTIONS`.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.types import ModuleId

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


DIRECTIONS: dict[str, Direction] = {
    "mean_difference": mean_difference,
    "random": random_direction,
}


def projection_sigma(
    values: Float[Tensor, "module sample d"], directions: Float[Tensor, "module d"]
) -> Float[Tensor, "module"]:
    """Standard deviation of the activations' projections on the direction, in activation units."""
    projections = torch.einsum("msd,md->ms", values, directions)
    return projections.std(dim=-1, correction=0)


def _normal_draw(module: ModuleId, d: int, seed: int) -> Tensor:
    name = f"{seed}/{module.kind}/{module.layer}/{module.head}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
    return torch.randn(d, generator=torch.Generator().manual_seed(number))
