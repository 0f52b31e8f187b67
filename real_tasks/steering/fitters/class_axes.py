"""Axes of several classes at once, each with a strength of its own (CI norms, arXiv 2604.00209)."""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput
from real_tasks.steering.fitters.one_vs_rest import check_both_labels, check_classes, of_class
from real_tasks.steering.fitters.pca import principal_component
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError


@FITTERS.register("class_axes")
class ClassAxes(DirectionFitter):
    """Points along the sum of the classes' axes, each times its strength.

    A class is of samples in which one thing varies and all others are held. Its axis, a unit
    vector, is their first principal component, turned to the side of its aligned samples. The sum
    has unit length: strengths say how the axes stand to each other, the operator how far to go.
    """

    class Params(Frozen):
        """Parameters of the fitter."""

        strengths: dict[str, float] = Field(
            {}, description="of each class's axis, by its name; empty: 1 of all, else 0 of others"
        )

    asks = frozenset({"classes"})

    def check(self, data: FitterInput) -> None:
        """Check that there are such classes, each with both labels.

        Raises:
            UserInputError: there are not, or all strengths are 0.
        """
        check_classes(data, strengths=self.params.strengths)
        if self.params.strengths and not self._strengths(data):
            raise UserInputError(
                f"fitter.params.strengths is {self.params.strengths}; expected one above or below "
                "0; name a class with a strength, or none for 1 of all"
            )
        check_both_labels(data, self._strengths(data))

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors.

        Raises:
            UserInputError: see `check`.
        """
        self.check(data)
        parts = []
        for name, strength in self._strengths(data).items():
            of = of_class(data, name)
            axis = principal_component(data.values[:, of].double(), data.labels[of])
            parts.append(strength * axis)
        return torch.nn.functional.normalize(torch.stack(parts).sum(0), dim=-1).to(data.values)

    def _strengths(self, data: FitterInput) -> dict[str, float]:
        """Return those that are not 0."""
        given = self.params.strengths or dict.fromkeys(data.class_names, 1.0)
        return {name: strength for name, strength in given.items() if strength}
