"""Changing what a module writes by a matrix of rank one: ``W x + strength * w (r . x)``.

``W`` are the columns that the projection behind a module has for it: those of a head in ``o_proj``,
of a neuron in ``down_proj``. So this is an edit of the weight, at a strength that can be tuned
(Steer2Edit, arXiv 2602.09870; ThinkEdit, arXiv 2503.22048).
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values


@OPERATORS.register("rank_one")
class RankOne(Operator):
    """Has modules write along a vector, in proportion to what is read of their activations."""

    needs = {"read": "d", "write": "d_model"}
    strengths: ClassVar[tuple[float, ...]] = (0.25, 0.5, 1.0, 2.0, 4.0)
    unit = "times the fitted edit"
    writes = True
    formula = "W x + s * w (r . x)"

    def acting(self, tensors: Tensors) -> Bool[Tensor, "*modules"]:
        """Return which modules write anything."""
        return tensors["read"].any(dim=-1) & tensors["write"].any(dim=-1)

    def apply(
        self, x: Values, tensors: Tensors, strength: Strength
    ) -> Float[Tensor, "row position d_model"]:
        """Return what is added to what the projection puts out."""
        read = torch.einsum("...md,md->...m", x, tensors["read"])
        return (strength * read) @ tensors["write"]
