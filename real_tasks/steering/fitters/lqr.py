"""Feedback that keeps layers near a set coordinate at the least cost (A-LQR, arXiv 2604.19018)."""

from collections.abc import Iterator
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape

Positive = Annotated[float, Field(gt=0)]


class LQRParams(Frozen):
    """Costs, where the coordinates are set, and what blocks are linearised about."""

    state: Positive = Field(10.0, description="cost of a coordinate's distance (q)")
    control: Positive = Field(10.0, description="cost of what is added (r)")
    final: Positive = Field(1.0, description="cost of the distance behind the last layer (q_f)")
    setpoint: Positive = Field(
        2.0, description="coordinate to be kept, in distances of the class means (lambda)"
    )
    texts: PositiveInt = Field(50, description="texts that blocks' Jacobians are averaged over")
    tokens: Annotated[int, Field(ge=2)] = Field(
        24, description="most tokens of them that are read: the first and the last ones"
    )


@FITTERS.register("lqr")
class LQR(Fitter):
    """Finds what to add behind a block for every unit of distance that its input has from its goal.

    The states are the residual stream between blocks, each taken as linear, by its Jacobian at the
    last token. With K the gain of the finite-horizon regulator and v the unit difference of the
    class means at a block's input, K times the distance along v is that times ``g = K v``: a vector
    for a layer, and no matrix, is all that is kept. It is given as ``direction`` and ``scale``;
    ``read`` is v, and ``setpoint`` the goal, lambda times the class means' distance.

    Of the first block only the last token's embedding is read, and nothing is added behind it.
    """

    Params = LQRParams
    gives = ("direction", "scale", "read", "setpoint")
    access = "gradients"
    all_layers = True
    params: LQRParams

    def tokens_read(self, shape: ModelShape, tokens: float, answers: float) -> float:  # noqa: ARG002
        """Return of each text its tokens once, the last as often as there are dimensions."""
        return self.params.texts * (min(tokens, self.params.tokens) + 3.0 * shape.d_model)

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return the tensors.

        Raises:
            UserInputError: the modules are not the outputs of all layers.
        """
        assert data.model is not None, "a fitter with gradients is given the model"
        if any(module.kind != "layer" for module in data.modules):
            raise UserInputError(
                f"feedback goes from a layer's input to its output; found {data.modules[0].label}, "
                "expected part: layer"
            )
        aligned, violating = (data.values[:, data.labels == k].mean(dim=1) for k in (1, 0))
        gaps = torch.zeros_like(aligned)
        gaps[1:] = (aligned - violating)[:-1]  # at the blocks' inputs
        read = normalize(gaps, dim=-1)
        chosen = torch.linspace(0, len(data.texts) - 1, min(self.params.texts, len(data.texts)))
        texts = [data.texts[int(place)] for place in chosen]
        blocks = data.model.jacobians(texts, self.params.tokens)
        costs = (self.params.state, self.params.control, self.params.final)
        backwards = zip(gains(blocks, *costs), read.double().flip(0), strict=True)
        pushed = torch.stack([gain @ v for gain, v in backwards]).flip(0).to(data.values)
        return {
            "direction": normalize(pushed, dim=-1),
            "scale": pushed.norm(dim=-1),
            "read": read,
            "setpoint": self.params.setpoint * gaps.norm(dim=-1),
        }


def gains(
    blocks: Float[Tensor, "layer d d"], state: float, control: float, final: float
) -> Iterator[Float[Tensor, "d d"]]:
    """Yield the gain of every layer, the last first, by which ``u = K (goal - x)`` is added.

    They make least ``sum state |x_t|^2 + control |u_t|^2``, with ``final`` for the last x, where
    ``x_{t+1} = A_t x_t + u_t``; by the Riccati recursion, backwards, in float64.
    """
    one = torch.eye(blocks.shape[1], dtype=torch.float64)
    ahead = final * one
    for block in blocks.flip(0):
        here = block.double()
        gain = torch.linalg.solve(ahead + control * one, ahead @ here)
        yield gain
        ahead = state * one + here.mT @ ahead @ (here - gain)
