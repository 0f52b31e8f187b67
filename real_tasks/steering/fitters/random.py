"""A direction drawn at random: a control."""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput
from real_tasks.vocabulary.types import ModuleId


@FITTERS.register("random")
class RandomDirection(DirectionFitter):
    """Points anywhere: drawn uniformly, from the seed and the module's identity alone."""

    stochastic = True

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:
        """Return the unit vectors."""
        draws = [_normal_draw(module, data.values.shape[-1], seed) for module in data.modules]
        return torch.nn.functional.normalize(torch.stack(draws).to(data.values), dim=-1)


def _normal_draw(module: ModuleId, d: int, seed: int) -> Tensor:
    name = f"{seed}/{module.kind}/{module.layer}/{module.head}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
    return torch.randn(d, generator=torch.Generator().manual_seed(number))
