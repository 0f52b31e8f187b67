"""One class against the others (after the functional-welfare axis, arXiv 2605.30232)."""

from collections.abc import Collection

import torch
from jaxtyping import Float
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

    def check(self, class_names: Collection[str]) -> None:
        """Check that there is such a class, and another.

        Raises:
            UserInputError: there is not.
        """
        if self.params.class_name not in class_names or len(class_names) < 2:
            raise UserInputError(
                f"fitter.params.class_name is {self.params.class_name!r}; expected one of several "
                f"classes of the training questions: {', '.join(sorted(class_names)) or 'none'}"
            )

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors.

        Raises:
            UserInputError: no training sample is of the class, or of another.
        """
        self.check({data.class_names[number] for number in data.classes if number >= 0})
        classes = torch.tensor(data.classes)
        own = classes == data.class_names.index(self.params.class_name)
        mean, rest = (data.values[:, of].mean(dim=1) for of in (own, (classes >= 0) & ~own))
        return torch.nn.functional.normalize(mean - rest, dim=-1)
