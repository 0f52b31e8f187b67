"""Scaling every dimension: ``x * (1 + strength * g)`` (AUSteer, arXiv 2602.04428)."""

from jaxtyping import Bool
from torch import Tensor

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values


@OPERATORS.register("scale")
class Scale(Operator):
    """Multiplies every dimension by a gain of its own; one of 0 leaves it as it is."""

    needs = {"gains": "d"}
    strengths = (0.5, 1.0, 2.0, 4.0, 8.0)
    unit = "times the gains"
    formula = "x * (1 + s * g)"

    def acting(self, tensors: Tensors) -> Bool[Tensor, "*modules"]:
        """Return which modules have a dimension that is scaled."""
        return tensors["gains"].any(dim=-1)

    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations scaled."""
        return x * (1 + strength[..., None] * tensors["gains"])
