"""Replacing by a stored value: ``x + strength * (c - x)`` (mean ablation; patching)."""

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values


@OPERATORS.register("replace")
class Replace(Operator):
    """Moves the activation to a stored one, which a strength of 1 puts in its place."""

    needs = {"value": "d"}
    highest = 1.0
    unit = "share of the way to the stored value"
    formula = "x + s * (c - x)"

    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations moved."""
        share = strength[..., None]
        return (1 - share) * x + share * tensors["value"]  # exact at both ends
