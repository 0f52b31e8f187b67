"""A vector and its strength, trained for a few of the prompt's tokens (PrOSV, arXiv 2605.05983)."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import logsigmoid

from real_tasks.steering.edits import Intervention
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.fitters.trained import (
    Pair,
    Preferences,
    TrainedParams,
    TrainedPush,
    descend,
    pushing,
)
from real_tasks.vocabulary.scopes import PromptEnds
from real_tasks.vocabulary.types import ModuleId

Positive = Annotated[float, Field(gt=0)]


class PrOSVParams(TrainedParams):
    """How vector and strength are trained; lengths and rates are the release's at a width of 2304.

    There the strength is sqrt(d) times as large, and the vector sqrt(d) times as small.
    """

    scope: PromptEnds = Field(
        PromptEnds(first=2, last=2),
        description="the prompt's tokens to push; give the method the same scope",
    )
    loss: Literal["language", "preference"] = Field(
        "preference",
        description="language: cross-entropy of aligned answers; preference: scaled SimPO of "
        "aligned over violating ones",
    )
    scale: Positive = Field(4.0, description="the strength at first")
    spread: Positive = Field(8.0, description="the vector's numbers at first are up to so large")
    scale_rate: Positive = Field(0.2, description="learning rate of the strength")
    vector_rate: Positive = Field(2.0, description="learning rate of the vector")
    batch: PositiveInt = Field(12, description="prompts in a batch, each with two answers")


@FITTERS.register("prosv")
class PrOSV(TrainedPush):
    """Adds strength times vector at the first and last tokens of the prompt, and nowhere else.

    Both are free and trained by Adam with rates of their own, which fall to 0 in a line; the
    gradient of the vector alone is clipped. All is in mean standard deviations of the activations,
    for models of any scale.
    """

    Params = PrOSVParams
    name = "prosv"
    params: PrOSVParams

    def trained(
        self, pairs: Preferences, site: ModuleId, unit: float, width: int, draw: torch.Generator
    ) -> Float[Tensor, "d"]:
        """Return strength times vector; see `TrainedPush.trained`."""
        params = self.params
        scale = torch.tensor(params.scale, requires_grad=True)
        vector = params.spread * (2 * torch.rand(width, generator=draw) - 1)
        vector.requires_grad_()
        optimizer = torch.optim.Adam(
            [
                {"params": [scale], "lr": params.scale_rate},
                {"params": [vector], "lr": params.vector_rate},
            ]
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / params.steps)

        def loss() -> Float[Tensor, ""]:
            chosen = pairs.drawn(params.batch, draw)
            push = pushing(site, unit * scale * vector, params.scope)
            return self._loss(pairs, chosen, pairs.log_probs(chosen, Intervention((push,))))

        descend(loss, optimizer, schedule, params.steps, clipped=[vector])
        return unit * scale * vector

    def _loss(
        self, pairs: Preferences, chosen: list[Pair], now: Float[Tensor, "pair 2"]
    ) -> Float[Tensor, ""]:
        places = [place for pair in chosen for place in pair]
        lengths = pairs.model.answer_lengths([pairs.texts[place] for place in places])
        n_tokens = now.new_tensor(lengths).view(-1, 2)
        if self.params.loss == "language":
            return -now[:, 0].sum() / n_tokens[:, 0].sum()
        aligned, violating = pairs.before[torch.tensor(chosen)].to(now).unbind(1)
        factor = (violating - aligned).clamp(min=1)
        means = now / n_tokens
        return -logsigmoid(factor * means[:, 0] - means[:, 1]).mean()
