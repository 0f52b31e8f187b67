"""One class against the others (after the functional-welfare axis, arXiv 2605.30232)."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError


@FITTERS.register("one_vs_rest")
class OneVersusRest(DirectionFitter):
    """Points from the mean of all other classes' samples to the mean of one class's.

    Labels do not count, and samples without a class are left out. Of three classes whose means are
    symmetric, two such directions have a cosine of -1/2: that alone does not make them opposites.
    """

    class Params(Frozen):
        """Parameters of the fitter."""

        class_name: str = Field("", description="the class to point to, as the data name it")

    asks = frozenset({"classes"})

    def check(self, data: FitterInput) -> None:
        """Check that there is such a class, and another.

        Raises:
            UserInputError: there is not.
        """
        check_classes(data, class_name=[self.params.class_name])

    def sides(self, data: FitterInput) -> tuple[Bool[Tensor, "sample"], Bool[Tensor, "sample"]]:
        """Return the samples of the class, and those of the others."""
        own = of_class(data, self.params.class_name)
        return own, (torch.tensor(data.classes) >= 0) & ~own

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors.

        Raises:
            UserInputError: no training sample is of the class, or of another.
        """
        self.check(data)
        mean, rest = (data.values[:, side].mean(dim=1) for side in self.sides(data))
        return torch.nn.functional.normalize(mean - rest, dim=-1)


def of_class(data: FitterInput, name: str) -> Bool[Tensor, "sample"]:
    """Return which samples are of a class."""
    return torch.tensor(data.classes) == data.class_names.index(name)


def check_classes(data: FitterInput, **named: Iterable[str]) -> None:
    """Check that the classes that parameters name are among several of the samples'.

    Raises:
        UserInputError: one is not; the parameter is named, and what there is.
    """
    there = data.class_names
    for parameter, names in named.items():
        for name in names:
            if name not in there or len(there) < 2:
                raise UserInputError(
                    f"fitter.params.{parameter} is {name!r}; expected one of several classes of "
                    f"the training questions: {', '.join(there) or 'none'}"
                )


def check_both_labels(data: FitterInput, names: Iterable[str]) -> None:
    """Check that classes have aligned and violating samples.

    Raises:
        UserInputError: one has not.
    """
    for name in names:
        labels = {*data.labels[of_class(data, name)].tolist()}
        if len(labels) < 2:
            raise UserInputError(
                f"the class {name!r} has only {'aligned' if labels == {1} else 'violating'} "
                "answers; expected both in every class that is named; give its questions the "
                "answers of the other kind, or use the fitter one_vs_rest, for which labels do "
                "not count"
            )
