"""The difference that a condition makes where the same questions are asked (2606.00995)."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Reading


@FITTERS.register("prompt_difference")
class PromptDifference(DirectionFitter):
    """Points from questions as they are asked under one condition to the same under another.

    Activations are read at the prompt's end: answers and labels do not count. It is the mean over
    the questions that are asked under both, of each the mean of its samples under either.
    """

    class Params(Frozen):
        """Parameters of the fitter."""

        condition: str = Field("", description="the condition to point to, as the data name it")
        reference: str = Field("", description="the one to point from; empty: all others")

    asks = frozenset({"conditions"})
    reading: ClassVar[Reading] = "prompt_end"

    def check(self, data: FitterInput) -> None:
        """Check that there are such conditions, and questions that are asked under both.

        Raises:
            UserInputError: there are not, or both are the same.
        """
        params, there = self.params, data.condition_names
        for name, said in (("condition", params.condition), ("reference", params.reference)):
            if said not in there and (said or name == "condition"):
                raise UserInputError(
                    f"fitter.params.{name} is {said!r}; expected one of several conditions of the "
                    f"training questions: {', '.join(there) or 'none'}"
                )
        if params.condition == params.reference:
            raise UserInputError(
                f"condition and reference are both {params.condition!r}, between which there is "
                "no direction; name two different ones in fitter.params, or no reference"
            )
        if not any(side.any() for side in self.sides(data)):
            raise UserInputError(
                f"no training question is asked under {params.condition!r} and also under "
                f"{params.reference or 'another condition'!r}; give the same text of a question "
                "under both, with another context, or join differing ones by a field pair"
            )

    def sides(self, data: FitterInput) -> tuple[Bool[Tensor, "sample"], Bool[Tensor, "sample"]]:
        """Return the samples under either condition, of the questions asked under both."""
        asked = torch.tensor(data.conditions)
        to = asked == data.condition_names.index(self.params.condition)
        others = (asked >= 0) & ~to
        if self.params.reference:
            others = asked == data.condition_names.index(self.params.reference)
        both = torch.isin(data.questions, data.questions[to])
        both &= torch.isin(data.questions, data.questions[others])
        return to & both, others & both

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors.

        Raises:
            UserInputError: see `check`.
        """
        self.check(data)
        under, without = (_mean_by_question(data, side) for side in self.sides(data))
        return torch.nn.functional.normalize(under - without, dim=-1).to(data.values)


@FITTERS.register("prompt_mean_difference")
class PromptMeanDifference(PromptDifference):
    """The same, of the mean over the prompt's tokens."""

    reading = "prompt_mean"


def _mean_by_question(data: FitterInput, side: Bool[Tensor, "sample"]) -> Float[Tensor, "module d"]:
    """Return the mean over questions, in which those with many answers count as the others do."""
    _, number, counts = data.questions[side].unique(return_inverse=True, return_counts=True)
    weights = 1 / counts[number].double() / len(counts)
    return torch.einsum("s,msd->md", weights, data.values[:, side].double())
