"""A vector trained through the frozen model in both directions at once (BiPO, arXiv 2406.00045)."""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import logsigmoid

from real_tasks.steering.edits import Intervention
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.fitters.trained import (
    Preferences,
    TrainedParams,
    TrainedPush,
    descend,
    pushing,
)
from real_tasks.vocabulary.types import ModuleId

Positive = Annotated[float, Field(gt=0)]


class BiPOParams(TrainedParams):
    """How the vector is trained."""

    beta: Positive = Field(0.1, description="inverse temperature of the preference")
    learning_rate: Positive = Field(
        0.1, description="of AdamW, in mean standard deviations of the activations"
    )
    batch: PositiveInt = Field(4, description="prompts in a batch, each with two answers")


@FITTERS.register("bipo")
class BiPO(TrainedPush):
    """Adds a vector so that aligned answers gain on violating ones, and taken away so they lose.

    Of each batch a sign m is drawn, and ``-log sigmoid(beta m D)`` goes down, where D is by how
    much the vector, added m times at every position, raises the log-odds of the aligned answer over
    those of the model as it is. No weight decay, as the release runs; the learning rate is in the
    activations' own units, for models of any scale, and falls along a cosine.
    """

    Params = BiPOParams
    name = "bipo"
    params: BiPOParams

    def trained(
        self, pairs: Preferences, site: ModuleId, unit: float, width: int, draw: torch.Generator
    ) -> Float[Tensor, "d"]:
        """Return the vector; see `TrainedPush.trained`."""
        vector = torch.zeros(width, requires_grad=True)
        optimizer = torch.optim.AdamW(
            [vector], lr=self.params.learning_rate, weight_decay=0.0, betas=(0.9, 0.999)
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.params.steps)

        def loss() -> Float[Tensor, ""]:
            sign = float(torch.randint(0, 2, (), generator=draw)) * 2 - 1
            chosen = pairs.drawn(self.params.batch, draw)
            now = pairs.log_probs(chosen, Intervention((pushing(site, unit * vector),), sign))
            gained = (now - pairs.before[torch.tensor(chosen)].to(now)) @ now.new_tensor(
                [1.0, -1.0]
            )
            return -logsigmoid(self.params.beta * sign * gained).mean()

        descend(loss, optimizer, schedule, self.params.steps)
        return unit * vector
