"""A gate that a small network decides (in the manner of Guiding Giants, arXiv 2505.20309)."""

from collections.abc import Mapping
from typing import Self

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor

from real_tasks.statistics.probes import ProbeParams, fit_probes
from real_tasks.steering.gates import GATES, Gate, GateInput, Seen
from real_tasks.steering.gates.deciding import mean_over
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import ModuleId


class ControllerParams(Frozen):
    """Where the network looks."""

    layer: NonNegativeInt | None = Field(
        None, description="layer whose input is read; null: the last one before the edit"
    )


@GATES.register("controller")
class Controller(Gate):
    """Opens by the probability that a logistic probe of the prompt's mean activation gives.

    It doses: the edit acts in proportion. Its paper trains a network of two layers on all layers'
    activations at once; one layer and a linear probe are our reading.
    """

    Params = ControllerParams
    needs = {"weights": "d", "bias": ""}
    once = True
    label = "a probe finds the prompt to be of the behaviour's kind, by its probability"
    params: ControllerParams

    @property
    def reads(self) -> tuple[ModuleId, ...]:
        """The input of its layer."""
        assert self.params.layer is not None, "a gate that is not fitted reads nowhere"
        return (ModuleId("residual_in", self.params.layer),)

    def fit(self, data: GateInput) -> tuple[Self, dict[str, Tensor]]:
        """Return the gate and its probe, in the activations' own units."""
        layer = self.params.layer if self.params.layer is not None else max(data.layers)
        values = torch.cat([data.opening[:, layer], data.closing[:, layer]]).double()
        labels = torch.cat([torch.ones(len(data.opening)), torch.zeros(len(data.closing))]).long()
        mean, scale = values.mean(dim=0), values.std(dim=0, correction=0)
        scale = torch.where(scale > 0, scale, 1.0)
        probe = fit_probes(((values - mean) / scale)[None], labels, ProbeParams())
        weights = probe.weights[0] / scale
        bias = probe.bias[0] - weights @ mean
        gate = type(self)(self.params.model_copy(update={"layer": layer}))
        return gate, {"weights": weights.float(), "bias": bias.float()}

    def strength(self, seen: Seen, tensors: Mapping[str, Tensor]) -> Float[Tensor, "row 1"]:
        """Return each row's probability."""
        prompt = mean_over(seen.activations[self.reads[0]], seen.in_prompt)
        return torch.sigmoid(prompt @ tensors["weights"] + tensors["bias"])[:, None]
