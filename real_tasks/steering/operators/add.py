"""Adding a constant: ``x + strength * scale * direction`` (REAL, section 3.3; ITI; CAA)."""

from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values


@OPERATORS.register("add")
class Add(Operator):
    """Pushes along a direction, by so many standard deviations of the activations along it."""

    needs = {"direction": "d", "scale": ""}
    strengths = (0.6, 1.2, 1.8, 2.4, 3.2, 4.9)
    unit = "standard deviations along the direction"
    formula = "x + s * sigma * v"

    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations pushed."""
        return x + (strength * tensors["scale"])[..., None] * tensors["direction"]

    def displacement(
        self, tensors: Tensors, strength: Float[Tensor, "module"]
    ) -> Float[Tensor, "module d"]:
        """Return the push of every module."""
        return (strength * tensors["scale"])[:, None] * tensors["direction"]
