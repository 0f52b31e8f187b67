"""A class's direction without what it shares with other classes' (purified traits, 2509.04794)."""

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput
from real_tasks.steering.fitters.mean_difference import mean_difference
from real_tasks.steering.fitters.one_vs_rest import check_both_labels, check_classes, of_class
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError


@FITTERS.register("purified")
class Purified(DirectionFitter):
    """Points from a class's violating to its aligned samples, at right angles to other classes.

    Of each class it takes the difference of the means of its labels (a trait's high and low
    answers), and of the first what lies outside of the space that the others span. That space does
    not depend on their order, and those that repeat each other take nothing else with them.
    """

    class Params(Frozen):
        """Parameters of the fitter."""

        class_name: str = Field("", description="the class to point to, as the data name it")
        against: tuple[str, ...] = Field(
            (), description="classes whose directions are taken out; empty: all others"
        )
        least: Annotated[float, Field(gt=0, lt=1)] = Field(
            0.01, description="share of the direction's length that has to be left"
        )

    asks = frozenset({"classes"})

    def check(self, data: FitterInput) -> None:
        """Check that there are such classes, each with both labels.

        Raises:
            UserInputError: there are not, or the class is to be taken out of itself.
        """
        name, against = self.params.class_name, self._against(data)
        check_classes(data, class_name=[name], against=against)
        if name in against:
            raise UserInputError(
                f"fitter.params.against names {name!r}, the class itself, of which nothing would "
                "be left; leave it out"
            )
        check_both_labels(data, [name, *against])

    def sides(self, data: FitterInput) -> tuple[Bool[Tensor, "sample"], Bool[Tensor, "sample"]]:
        """Return the class's aligned samples, and its violating ones."""
        own = of_class(data, self.params.class_name)
        return own & (data.labels == 1), own & (data.labels == 0)

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors.

        Raises:
            UserInputError: nothing is left of a module's.
        """
        self.check(data)
        own, *others = (
            mean_difference(data.values[:, of].double(), data.labels[of])
            for of in (of_class(data, n) for n in (self.params.class_name, *self._against(data)))
        )
        shared = torch.stack(others, dim=-1)
        left = own - (shared @ torch.linalg.pinv(shared, rtol=1e-6) @ own[..., None])[..., 0]
        few = left.norm(dim=-1) < self.params.least * own.norm(dim=-1)
        if few.any():
            of = [module.label for module, is_few in zip(data.modules, few, strict=True) if is_few]
            raise UserInputError(
                f"less than {self.params.least:.0%} of the direction of {self.params.class_name!r} "
                f"is left beside {', '.join(self._against(data))}, in {len(of)} modules, the first "
                f"is {of[0]}; name fewer or other classes in fitter.params.against"
            )
        return torch.nn.functional.normalize(left, dim=-1).to(data.values)

    def _against(self, data: FitterInput) -> tuple[str, ...]:
        others = tuple(name for name in data.class_names if name != self.params.class_name)
        return self.params.against or others
