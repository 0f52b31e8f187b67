"""Operators: what is done to the activations of a site, a file each.

An operator is a subclass of `Operator` registered by ``@OPERATORS.register("name")``. It is written
for many modules at once, and knows nothing of hooks, scopes or gates. Whatever is affine in the
activations is baked into weights by `real_tasks.export.bake`, from `Operator.apply` itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from real_tasks.vocabulary.config import Configured
from real_tasks.vocabulary.registry import Registry

Tensors = Mapping[str, Tensor]
"""What an operator works with, by name; every tensor has a leading ``module`` axis."""
Values = Float[Tensor, "row position module d"]
"""Activations of some modules."""
Strength = Float[Tensor, "#row #position module"]
"""Of every module; tells rows and positions apart where a gate does."""


class Operator(Configured, ABC):
    """Changes activations by a strength, the one number that tuning moves.

    At a strength of 0 nothing changes, bit for bit: there is no hook then.

    Attributes:
        needs: its tensors, each with its axes after that of the modules, as ``"d"``, ``"2 d"``,
            ``"d rank"`` or ``""``; an axis of one name has one size, and ``d_model`` that of the
            residual stream.
        unit_length: which of them are unit vectors along ``d``, those of a module orthogonal to
            each other.
        highest: largest strength that has a meaning; finite where the effect is bounded.
        strengths: to choose from where neither method nor experiment say; in `unit`.
        unit: what a strength of 1 is, for people.
        affine: whether it maps ``x`` to ``A x + a`` with constant ``A`` and ``a``, and so can be
            baked into the weights before or after a site.
        writes: whether it leaves ``x`` as it is, and `apply` returns what its modules together add
            to what the projection behind them puts out, linear in ``x``: a change of the columns
            that this has for them.
        formula: what it does, for people.
    """

    needs: ClassVar[Mapping[str, str]] = {"direction": "d"}
    unit_length: ClassVar[tuple[str, ...]] = ()
    highest: ClassVar[float] = float("inf")
    strengths: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75, 1.0)
    unit: ClassVar[str] = "share"
    affine: bool = True
    writes: ClassVar[bool] = False
    formula: str = ""

    @property
    def bounded(self) -> bool:
        """Whether there is a largest strength, so that a given side effect may be out of reach."""
        return self.highest < float("inf")

    @abstractmethod
    def apply(self, x: Values, tensors: Tensors, strength: Strength) -> Values:
        """Return the activations changed; each module by its own tensors and strength.

        One that `writes` returns ``[row, position, d_model]``.

        Args:
            x: activations, float32 unless the model's type is wider.
            tensors: as `needs` says, on the device of ``x`` and in its type.
            strength: of every module, in every row and position or in all alike.
        """

    def acting(self, tensors: Tensors) -> Bool[Tensor, "*modules"] | None:  # noqa: ARG002
        """Return which modules are changed at all by their tensors; None: all of them.

        Where modules have axes of their own, one of length 1 stands for all along it.
        """
        return None

    def displacement(
        self,
        tensors: Tensors,  # noqa: ARG002
        strength: Float[Tensor, "module"],  # noqa: ARG002
    ) -> Float[Tensor, "module d"] | None:
        """Return what is added, where that is the same whatever the activations are; else None."""
        return None


OPERATORS: Registry[Operator] = Registry("operator", "real_tasks.steering.operators", Operator)
