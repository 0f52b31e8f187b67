"""Turning by an angle within a plane (Selective and Angular Steering, arXiv 2601.19375)."""

from typing import Any, Literal

import torch
from pydantic import Field

from real_tasks.steering.operators import OPERATORS, Operator, Strength, Tensors, Values
from real_tasks.vocabulary.config import Frozen


@OPERATORS.register("rotate")
class Rotate(Operator):
    """Turns what lies in a plane, from its first unit vector towards its second; keeps the length.

    Larger angles than 180 degrees turn the other way, and less and less; that half of the circle is
    had by `way`.
    """

    class Params(Frozen):
        """What the angle is counted from."""

        to: Literal["relative", "absolute"] = Field(
            "relative",
            description="relative: by the angle, from where the activation lies; absolute: to the "
            "angle, counted from the plane's first vector, wherever it lies",
        )
        way: Literal["forth", "back"] = Field(
            "forth",
            description="forth: from the plane's first vector towards its second; back: the other "
            "way, as 360 degrees less the angle would be",
        )

    needs = {"plane": "2 d"}
    unit_length = ("plane",)
    highest = 180.0
    strengths = (10.0, 20.0, 45.0, 90.0, 135.0, 180.0)
    unit = "degrees"
    formula = "x + (R(s) - 1) P x, P = b1 b1^T + b2 b2^T"

    def __init__(self, params: Any) -> None:
        """Keep the parameters; only a turn from where an activation lies is linear in it."""
        super().__init__(params)
        if params.to == "absolute":
            self.affine = False
            self.formula = "x - P x + |P x| (cos(s) b1 + sin(s) b2), P = b1 b1^T + b2 b2^T"
        if params.way == "back":
            self.formula = self.formula.replace("(s)", "(-s)")

    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations turned; those at an angle of 0 as they are, absolute or not."""
        first, second = tensors["plane"].unbind(-2)
        along, across = (x * first).sum(-1), (x * second).sum(-1)
        angle = torch.deg2rad(strength if self.params.way == "forth" else -strength)
        if self.params.to == "relative":
            cos, sin = angle.cos() - 1, angle.sin()
            moved = (cos * along - sin * across, sin * along + cos * across)
        else:
            length, turned = torch.hypot(along, across), strength != 0
            moved = (
                (length * angle.cos() - along) * turned,
                (length * angle.sin() - across) * turned,
            )
        return x + moved[0][..., None] * first + moved[1][..., None] * second
