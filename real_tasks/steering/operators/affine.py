"""A low-rank affine change: ``x + strength * (U V^T x + b)`` (LoReFT, arXiv 2404.03592; LinEAS)."""

import torch

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values


@OPERATORS.register("affine")
class Affine(Operator):
    """Adds a fitted affine function of the activation, all of it at a strength of 1."""

    needs = {"left": "d rank", "right": "d rank", "bias": "d"}
    unit = "share of the fitted change"
    formula = "x + s * (U V^T x + b)"

    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations changed, without a matrix of d by d."""
        read = torch.einsum("...md,mdr->...mr", x, tensors["right"])
        change = torch.einsum("...mr,mdr->...md", read, tensors["left"]) + tensors["bias"]
        return x + strength[..., None] * change
