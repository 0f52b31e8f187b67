"""Muon: momentum whose update of a matrix is replaced by its nearest orthogonal matrix.

After Jordan et al. (https://kellerjordan.github.io/posts/muon). It differs from `torch.optim.Muon`
in two things: matrices of one shape are one batched program, and the arithmetic is float32, since
many processors have no fast bfloat16 product.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5 that pull singular values towards 1 fastest."""

_EPSILON = 1e-7


class BatchedMuon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for 2-D parameters on one device."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
    ) -> None:
        """Group the matrices by shape.

        Args:
            matrices: parameters of shape `[out, in]`.
            lr: learning rate; times sqrt(rows / columns) for a matrix with more rows.
            momentum: share of the gradient average that is kept in a step.
            weight_decay: share of a weight, times the learning rate, that is lost in a step.
            iterations: Newton-Schulz iterations of the orthogonalisation.
        """
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            by_shape[matrix.shape].append(matrix)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "iterations": iterations,
        }
        super().__init__([{"params": group} for group in by_shape.values()], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix from its gradient; a closure is not supported."""
        assert closure is None
        for group in self.param_groups:
            matrices = group["params"]
            gradients = torch.stack([matrix.grad for matrix in matrices])
            state = self.state[matrices[0]]
            average = state.setdefault("average", torch.zeros_like(gradients))
            average.lerp_(gradients, 1 - group["momentum"])
            updates = orthogonalise(
                gradients.lerp_(average, group["momentum"]), group["iterations"]
            )
            rows, columns = updates.shape[1:]
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            scale = -group["lr"] * max(1.0, rows / columns) ** 0.5
            torch._foreach_add_(matrices, list(updates.unbind()), alpha=scale)


def orthogonalise(
    matrices: Float[Tensor, "matrix out in"], iterations: int
) -> Float[Tensor, "matrix out in"]:
    """Return U V' of each matrix U S V', its singular values near 1 (within about 0.7 to 1.2).

    A quintic Newton-Schulz iteration: products only, no decomposition.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(_EPSILON)
    linear, cubic, quintic = _QUINTIC
    for _ in range(iterations):
        gram = x @ x.mT
        x = linear * x + torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic) @ x
    return x.mT if tall else x
