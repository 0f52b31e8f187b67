"""A gate that a small trained network opens and doses (Guiding Giants, arXiv 2505.20309)."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import linear

from real_tasks.steering.gates import GATES, Gate, GateInput, Seen
from real_tasks.steering.gates.deciding import last_of
from real_tasks.steering.probes import ProbeParams, fit_standardised
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import ModuleId

N_READ = 4
LARGEST_GRADIENT = 1.0
LOW = 0.01
"""Weight of the layers' mean weight beside its distance to a half."""


class ControllerParams(Frozen):
    """Where the network looks, what it is, how it is trained, and how it doses."""

    layers: tuple[NonNegativeInt, ...] = Field(
        (), description=f"layers whose inputs are read; empty: the last {N_READ} before the edit"
    )
    hidden: NonNegativeInt = Field(
        1024, description="hidden units; 0: none, a logistic probe and a half for every layer"
    )
    dose: Literal["positive", "probability", "logit"] = Field(
        "positive",
        description="strength by the network's log-odds s: max(s, 0), which closes the gate below "
        "0; their probability; s itself, which pushes the other way below 0, as the release does",
    )
    standardise: bool = Field(
        True,
        description="train on activations less their mean, over the deviation within the two kinds "
        "of texts; false: as they are, as the release",
    )
    steps: PositiveInt = Field(
        400, description="batches, however few texts there are; the release takes ten epochs"
    )
    batch: PositiveInt = Field(64, description="texts in a batch; the release's 8")
    mixed: bool = Field(
        True, description="batches of both kinds; false: all that open first, as the release does"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        5e-4, description="of AdamW; the release's 5e-5"
    )
    evenness: Annotated[float, Field(ge=0)] = Field(
        0.1, description="weight of what keeps layers' weights near a half"
    )
    seed: NonNegativeInt = Field(0, description="of first weights and batches")


@GATES.register("controller")
class Controller(Gate):
    """Has a network say how strongly a prompt is steered, and each layer's share of that.

    The network reads the activations at the prompt's last token, of several layers at once, and
    gives the log-odds that the prompt is of the kind that opens, and a weight from 0 to 1 for every
    layer of the model. It is trained on activations alone. So no label reaches the layers' weights,
    which stay near a half: see `evenness`. Of the strength, each layer gets its weight's part.

    Standardised, a few texts and few steps suffice, whatever the activations' lengths and whichever
    dimensions are far from zero in all texts; the network that is kept reads them as they are.
    """

    Params = ControllerParams
    once = True
    at_end = True
    needs = {"out_weight": "share hidden", "out_bias": "share"}
    label = "a network finds the prompt to be of the behaviour's kind, and as strongly as it says"
    params: ControllerParams

    @property
    def reads(self) -> tuple[ModuleId, ...]:
        """The inputs of its layers."""
        assert self.params.layers, "a gate that is not fitted reads nowhere"
        return tuple(ModuleId("residual_in", layer) for layer in self.params.layers)

    def fit(self, data: GateInput) -> tuple[Self, dict[str, Tensor]]:
        """Return the gate and its trained network.

        Raises:
            UserInputError: a layer that it may not read.
        """
        layers = self.params.layers or data.layers[-N_READ:]
        data.check(layers)
        read = torch.cat([data.opening, data.closing])[:, list(layers)].flatten(1)
        opens = torch.arange(len(read)) < len(data.opening)
        gate = type(self)(self.params.model_copy(update={"layers": layers}))
        train = self._trained if self.params.hidden else self._read_out
        return gate, train(read, opens.float(), data.opening.shape[1])

    def strength(self, seen: Seen, tensors: Mapping[str, Tensor]) -> Float[Tensor, "row one layer"]:
        """Return each row's strength at every layer."""
        found = torch.cat([last_of(seen.activations[s], seen.in_prompt) for s in self.reads], -1)
        if self.params.hidden:
            found = linear(found, tensors["hidden_weight"], tensors["hidden_bias"]).relu()
        found = linear(found, tensors["out_weight"], tensors["out_bias"])
        odds, shares = found[:, :1], found[:, 1:].sigmoid()
        if self.params.dose != "logit":
            odds = odds.relu() if self.params.dose == "positive" else odds.sigmoid()
        return (odds * shares)[:, None]

    def _read_out(
        self, read: Float[Tensor, "text d"], opens: Float[Tensor, "text"], n_layers: int
    ) -> dict[str, Tensor]:
        """Return the linear network: a logistic probe, and a half for every layer."""
        probe = fit_standardised(read[None], opens.long(), ProbeParams())
        nothing = read.new_zeros(n_layers, 1 + read.shape[1])
        found = torch.cat([torch.cat([probe.weights, probe.bias[:, None]], 1).float(), nothing])
        return {"out_weight": found[:, :-1], "out_bias": found[:, -1]}

    @torch.enable_grad()
    def _trained(
        self, read: Float[Tensor, "text d"], opens: Float[Tensor, "text"], n_layers: int
    ) -> dict[str, Tensor]:
        hidden, seed = self.params.hidden, self.params.seed
        mean, sd = torch.zeros(()), torch.ones(())
        if self.params.standardise:
            mean, sd = read.mean(dim=0), _spread(read, opens)
        read = (read - mean) / sd
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = {"hidden": nn.Linear(read.shape[1], hidden), "rectified": nn.ReLU()}
            network = nn.Sequential(OrderedDict(parts, out=nn.Linear(hidden, 1 + n_layers)))
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.params.learning_rate)
        batches = self._batches(opens, torch.Generator().manual_seed(seed))
        for rows in islice(batches, self.params.steps):
            optimizer.zero_grad()
            self._loss(network(read[rows]), opens[rows]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimizer.step()
        found = {name.replace(".", "_"): part for name, part in network.state_dict().items()}
        found["hidden_weight"] = found["hidden_weight"] / sd
        found["hidden_bias"] -= found["hidden_weight"] @ mean.expand(read.shape[1])
        return found

    def _batches(self, opens: Float[Tensor, "text"], draw: torch.Generator) -> Iterator[Tensor]:
        """Yield the rows of batches without end, every epoch in an order of its own."""
        while True:
            order = torch.randperm(len(opens), generator=draw)
            parts = [order] if self.params.mixed else [order[opens[order] == k] for k in (1, 0)]
            for part in parts:
                yield from part.split(self.params.batch)

    def _loss(self, found: Float[Tensor, "text out"], opens: Float[Tensor, "text"]) -> Tensor:
        loss = cross_entropy(found[:, 0], opens)
        shares = found[opens == 1, 1:].sigmoid()
        if len(shares):
            even = (shares - 0.5).abs().mean() + LOW * shares.mean()
            loss = loss + self.params.evenness * even
        return loss


def _spread(read: Float[Tensor, "text d"], opens: Float[Tensor, "text"]) -> Float[Tensor, "d"]:
    """Return the deviation within the kinds of texts; that over all of them where there is none.

    It is infinite where nothing varies: that counts nothing.
    """
    means = torch.stack([read[opens == kind].mean(dim=0) for kind in (0, 1)])
    least = 1e-6 * read.abs().amax(dim=0)
    within = (read - means[opens.long()]).square().mean(dim=0).sqrt()
    whole = read.std(dim=0, correction=0)
    return within.where(within > least, whole.where(whole > least, torch.inf))
