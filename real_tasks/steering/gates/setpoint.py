"""Feedback: an edit in proportion to a distance that a layer's input has (A-LQR, 2604.19018)."""

from collections.abc import Mapping
from typing import Self

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from real_tasks.steering.gates import GATES, Gate, Seen
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import ModuleId


class SetpointParams(Frozen):
    """Whose input is read."""

    layer: int = Field(-1, description="layer whose input is read; -1: that of the edit")


@GATES.register("setpoint")
class Setpoint(Gate):
    """Acts by how far ``v . x`` at the layer's input is below a set coordinate.

    Beyond it, it acts the other way. The edit behind it adds what the fitter found for a distance
    of 1 (`real_tasks.steering.fitters.lqr`).
    """

    Params = SetpointParams
    needs = {"read": "d", "setpoint": ""}
    of_module = True
    label = "and by how far the coordinate at the layer's input is from the one that is set"
    params: SetpointParams

    @property
    def reads(self) -> tuple[ModuleId, ...]:
        """The layer's input."""
        assert self.params.layer >= 0, "a gate that is not placed reads nowhere"
        return (ModuleId("residual_in", self.params.layer),)

    def placed(self, site: ModuleId) -> Self:
        """Return the same gate, which reads the input of a site's layer."""
        layer = self.params.layer if self.params.layer >= 0 else site.layer
        return type(self)(self.params.model_copy(update={"layer": layer}))

    def strength(self, seen: Seen, tensors: Mapping[str, Tensor]) -> Float[Tensor, "row position"]:
        """Return the distance at every position; the sums are in float32."""
        return tensors["setpoint"] - seen.activations[self.reads[0]].float() @ tensors["read"]
