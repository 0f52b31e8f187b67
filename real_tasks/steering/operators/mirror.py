"""Mirroring a coordinate at a threshold: ``x + 2 * strength * (t - v . x) v`` where ``v . x < t``.

StMP of arXiv 2604.08169, without its cap.
"""

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values


@OPERATORS.register("mirror")
class Mirror(Operator):
    """Mirrors the coordinate along a unit vector where it lies below a threshold.

    A strength of 1 mirrors, one of 0.5 lands on the threshold; what lies above it stays.
    """

    needs = {"direction": "d", "threshold": ""}
    unit_length = ("direction",)
    affine = False
    highest = 1.0
    unit = "share of the way to the mirror image"
    formula = "x + 2 s * (t - v . x) v where v . x < t"

    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations, mirrored where they are on the wrong side."""
        v = tensors["direction"]
        missing = (tensors["threshold"] - (x * v).sum(-1)).clamp_min(0)
        return x + (2 * strength * missing)[..., None] * v
