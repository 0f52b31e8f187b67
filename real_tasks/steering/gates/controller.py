"""A gate that a small network decides (in the manner of Guiding Giants, arXiv 2505.20309)."""

from collections.abc import Mapping
from typing import Self

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor

from real_tasks.statistics.probes import ProbeParams, fit_standardised
from real_tasks.steering.gates import GATES, GateInput, Seen
from real_tasks.steering.gates.deciding import PromptGate
from real_tasks.vocabulary.config import Frozen


class ControllerParams(Frozen):
    """Where the network looks."""

    layer: NonNegativeInt | None = Field(
        None, description="layer whose input is read; null: the last one before the edit"
    )


@GATES.register("controller")
class Controller(PromptGate):
    """Opens by the probability that a logistic probe of the prompt's mean activation gives.

    It doses: the edit acts in proportion. Its paper trains a network of two layers on all layers'
    activations at once; one layer and a linear probe are our reading.
    """

    Params = ControllerParams
    needs = {"weights": "d", "bias": ""}
    label = "a probe finds the prompt to be of the behaviour's kind, by its probability"
    params: ControllerParams

    def fit(self, data: GateInput) -> tuple[Self, dict[str, Tensor]]:
        """Return the gate and its probe, in the activations' own units."""
        layer = self.params.layer if self.params.layer is not None else max(data.layers)
        values = torch.cat([data.opening[:, layer], data.closing[:, layer]])
        labels = torch.cat([torch.ones(len(data.opening)), torch.zeros(len(data.closing))]).long()
        probe = fit_standardised(values[None], labels, ProbeParams())
        gate = type(self)(self.params.model_copy(update={"layer": layer}))
        return gate, {"weights": probe.weights[0].float(), "bias": probe.bias[0].float()}

    def strength(self, seen: Seen, tensors: Mapping[str, Tensor]) -> Float[Tensor, "row 1"]:
        """Return each row's probability."""
        prompt = self.prompt(seen)
        return torch.sigmoid(prompt @ tensors["weights"] + tensors["bias"])[:, None]
