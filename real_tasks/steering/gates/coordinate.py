"""A gate on each token's coordinate along the edit's own direction (StTP, arXiv 2604.08169)."""

from collections.abc import Mapping
from typing import Literal, Self

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from real_tasks.steering.gates import GATES, Gate, Seen
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import ModuleId, ModuleKind


class CoordinateParams(Frozen):
    """Which side of the threshold opens the gate, and whose coordinate it looks at."""

    opens: Literal["above", "below"] = Field(
        "below", description="below: what is not on the aligned side yet"
    )
    kind: ModuleKind | None = Field(None, description="part that is read; null: the edit's own")
    layer: int = Field(-1, description="its layer, where a part is named")
    head: int = Field(-1, description="its unit, where a part is named")


@GATES.register("coordinate")
class Coordinate(Gate):
    """Open at the positions whose ``v . x`` lies on one side of a threshold."""

    Params = CoordinateParams
    needs = {"direction": "d", "threshold": ""}
    of_module = True
    label = "the coordinate along the direction lies on the other side"
    params: CoordinateParams

    @property
    def reads(self) -> tuple[ModuleId, ...]:
        """The site of the coordinate."""
        assert self.params.kind is not None, "a gate that is not placed reads nowhere"
        return (ModuleId(self.params.kind, self.params.layer, self.params.head),)

    def placed(self, site: ModuleId) -> Self:
        """Return the gate that reads a site, unless it is said to read another one."""
        if self.params.kind is not None:
            return self
        place = {"kind": site.kind, "layer": site.layer, "head": site.head}
        return type(self)(self.params.model_copy(update=place))

    def strength(self, seen: Seen, tensors: Mapping[str, Tensor]) -> Float[Tensor, "row position"]:
        """Return 1 at the positions that open it; the sums are in float32."""
        values = seen.activations[self.reads[0]].float()
        along, threshold = values @ tensors["direction"], tensors["threshold"]
        return (along < threshold if self.params.opens == "below" else along > threshold).float()
