"""Removing a direction: ``x - strength * (v . x) v`` (directional ablation, arXiv 2406.11717)."""

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values


@OPERATORS.register("project_out")
class ProjectOut(Operator):
    """Removes the component along a unit vector, all of it at a strength of 1."""

    unit_length = ("direction",)
    highest = 1.0
    unit = "share of the component that is removed"
    formula = "x - s * (v . x) v"

    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations without the share of their component."""
        v = tensors["direction"]
        return x - (strength * (x * v).sum(-1))[..., None] * v
