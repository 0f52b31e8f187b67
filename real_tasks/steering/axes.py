"""Axes along which samples lie, all modules at once."""

import torch
from jaxtyping import Float
from torch import Tensor


def widest_axes(values: Float[Tensor, "module sample d"]) -> Float[Tensor, "module d"]:
    """Return the unit vector along which each module's values are largest, in mean square.

    Of centred values it is the first principal component. Its sign has no meaning.
    """
    return torch.stack([torch.linalg.eigh(one.mT @ one).eigenvectors[:, -1] for one in values])


def turned(
    axes: Float[Tensor, "module d"], towards: Float[Tensor, "module d"]
) -> Float[Tensor, "module d"]:
    """Return the axes, each turned to the side of a vector."""
    backwards = torch.einsum("md,md->m", axes, towards) < 0
    return torch.where(backwards[:, None], -axes, axes)
