"""Setting a coordinate: ``x + strength * (c - v . x) v`` (CDAS, arXiv 2602.05234)."""

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values


@OPERATORS.register("clamp")
class Clamp(Operator):
    """Brings the coordinate along a unit vector to a target, all the way at a strength of 1."""

    needs = {"direction": "d", "target": ""}
    unit_length = ("direction",)
    highest = 1.0
    unit = "share of the way to the target"
    formula = "x + s * (c - v . x) v"

    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations with their coordinate moved."""
        v = tensors["direction"]
        return x + (strength * (tensors["target"] - (x * v).sum(-1)))[..., None] * v
