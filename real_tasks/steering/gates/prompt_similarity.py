"""A gate that prompts of one kind open (CAST, arXiv 2409.05907)."""

from collections.abc import Mapping
from typing import Literal, Self

from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor

from real_tasks.steering.gates import GATES, Gate, GateInput, Seen
from real_tasks.steering.gates.deciding import best_threshold, class_gap, mean_over
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import ModuleId


class PromptSimilarityParams(Frozen):
    """Where the gate looks, and which side of its threshold opens it."""

    layer: NonNegativeInt | None = Field(
        None, description="layer whose input is read; null: the one that tells best"
    )
    opens: Literal["above", "below"] = Field(
        "above", description="below: closed for prompts like those that it was fitted to"
    )


@GATES.register("prompt_similarity")
class PromptSimilarity(Gate):
    """Open where the mean activation of the prompt lies on the condition's side.

    The condition vector is the unit difference of the mean over the prompts that are to open it and
    the mean over those that are not; the threshold on the coordinate along it is the one of the
    largest F1 on the very prompts. The paper takes the first principal component of the two kinds
    and a cosine; the difference of means has no sign to be guessed. Decided once, on the prompt,
    without its first token. That one is often a hundred times as large as others, whatever it is: a
    mean with it tells how long a prompt is, not what it says.
    """

    Params = PromptSimilarityParams
    once = True
    needs = {"direction": "d", "threshold": ""}
    label = "prompts are like the behaviour's"
    params: PromptSimilarityParams

    @property
    def reads(self) -> tuple[ModuleId, ...]:
        """The input of its layer."""
        assert self.params.layer is not None, "a gate that is not fitted reads nowhere"
        return (ModuleId("residual_in", self.params.layer),)

    def fit(self, data: GateInput) -> tuple[Self, dict[str, Tensor]]:
        """Return the gate at the layer that tells the prompts apart best, and its tensors.

        Raises:
            UserInputError: a layer that it may not read.
        """
        layers = [self.params.layer] if self.params.layer is not None else data.layers
        data.check(layers)
        found = {}
        for layer in layers:
            opening, closing = data.opening[:, layer], data.closing[:, layer]
            direction = class_gap(opening, closing)
            threshold, f1 = best_threshold(opening @ direction, closing @ direction)
            found[layer] = (f1, direction, threshold)
        # Of layers that tell alike the first: what lies behind it can be edited.
        best = max(found, key=lambda layer: (found[layer][0], -layer))
        _, direction, threshold = found[best]
        params = self.params.model_copy(update={"layer": best})
        return type(self)(params), {"direction": direction, "threshold": threshold}

    def strength(self, seen: Seen, tensors: Mapping[str, Tensor]) -> Float[Tensor, "row 1"]:
        """Return 1 for the rows whose prompt opens it."""
        where = seen.in_prompt
        follows = (where.cumsum(dim=1) > 1) | (where.sum(dim=1, keepdim=True) == 1)
        prompt = mean_over(seen.activations[self.reads[0]], where & follows)
        along = prompt @ tensors["direction"]
        opened = along > tensors["threshold"]
        return (opened == (self.params.opens == "above")).float()[:, None]
