"""Fitters: from activations to an operator's tensors, a file each.

A fitter is a subclass of `Fitter` registered by ``@FITTERS.register("name")``. It goes with every
operator whose tensors it gives.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from real_tasks.steering.model_access import ModelAccess, Text
from real_tasks.vocabulary.config import Configured
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import (
    Aspect,
    LocalizerResult,
    ModelShape,
    ModuleId,
    ModuleKind,
    Reading,
)

Access = Literal["activations", "weights", "gradients", "samples"]


@dataclass(frozen=True)
class FitterInput:
    """What a fitter sees of a layer's modules, or of all layers': training questions only.

    Attributes:
        modules: the modules.
        values: their activations, float32 on the CPU.
        labels: 1 aligned, 0 violating.
        questions: index of each sample's question; questions that a pair joins have the same.
        pairs: each sample's partner of the other label, by its place among the samples, or -1.
        classes: each sample's class by its place in ``class_names``, or -1.
        class_names: those that the samples have, in alphabetical order.
        conditions: that under which each sample's question is asked, by its place in
            ``condition_names``, or -1.
        condition_names: likewise.
        texts: each sample's text; none for fitters that ask for activations alone.
        model: the frozen model, for fitters whose access is more than activations.
        ranked: for fitters that ask for it (`Fitter.ranking`): a localizer's results of all modules
            of a kind, a shard each.
        beside: for fitters that ask for it (`Fitter.beside`): what another part has, of each layer
            of the modules, read at the same tokens.
    """

    modules: tuple[ModuleId, ...]
    values: Float[Tensor, "module sample d"]
    labels: Int[Tensor, "sample"]
    questions: Int[Tensor, "sample"]
    pairs: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    conditions: tuple[int, ...] = ()
    condition_names: tuple[str, ...] = ()
    texts: tuple[Text, ...] = ()
    model: ModelAccess | None = None
    ranked: tuple[LocalizerResult, ...] = ()
    beside: Float[Tensor, "layer sample d_model"] | None = None


class Fitter(Configured, ABC):
    """Finds an operator's tensors.

    Attributes:
        gives: names of the tensors.
        access: what it needs: activations, weights, gradients through the frozen model, or samples
            from it. All but the first get the model (`FitterInput.model`), and activations too.
        asks: what the samples must have; data without it are refused before anything is read.
        reading: the tokens at which activations are read.
        beside: by kind of its modules, a whole part that it sees too (`FitterInput.beside`).
        stochastic: whether the seed changes what it finds.
        all_layers: whether it sees the modules of all layers at once, the first layer's first, and
            what it finds of one may depend on the others.
        ranking: the localizer whose result it is given, and the kind of the modules that are
            ranked; that of the modules that are steered may be another.
    """

    gives: ClassVar[tuple[str, ...]] = ()
    access: ClassVar[Access] = "activations"
    asks: ClassVar[frozenset[Aspect]] = frozenset()
    reading: ClassVar[Reading] = "last"
    beside: ClassVar[Mapping[ModuleKind, ModuleKind]] = {}
    stochastic: ClassVar[bool] = False
    all_layers: ClassVar[bool] = False
    ranking: ClassVar[tuple[str, ModuleKind] | None] = None

    def tokens_read(self, shape: ModelShape, tokens: float, answers: float) -> float:  # noqa: ARG002
        """Return the tokens that the model reads for a module, or with `all_layers` for all.

        To plan: a token with a gradient counts as three. ``tokens`` are those of an answer with its
        prompt, ``answers`` those of a question.
        """
        return 0.0

    @classmethod
    def trained_alone(cls) -> bool:
        """Whether each module takes many passes of the model, and none depends on another."""
        return cls.access == "gradients" and not cls.all_layers

    def check(self, data: FitterInput) -> None:  # noqa: B027 - most need none
        """Check the parameters against the samples, whose modules and values may not be there yet.

        Raises:
            UserInputError: they do not go together.
        """

    @abstractmethod
    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:
        """Return the tensors `gives` names, a row each module, or one for all of a layer.

        Without `all_layers` a module's rows depend on its own activations, its identity and the
        seed alone.

        Raises:
            UserInputError: the data do not allow it.
        """


class DirectionFitter(Fitter):
    """Finds a unit vector for every module, and what the samples are like along it.

    It gives ``direction``; ``scale``, the standard deviation of the projections (sigma); ``target``
    and ``threshold``: the mean projection of the samples that it points to, and the middle between
    that and the mean of those that it points away from (`sides`). All in activation units.
    """

    gives = ("direction", "scale", "target", "threshold")

    @abstractmethod
    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:
        """Return the unit vectors.

        Raises:
            UserInputError: the data do not allow it.
        """

    def sides(self, data: FitterInput) -> tuple[Bool[Tensor, "sample"], Bool[Tensor, "sample"]]:
        """Return which samples it points to, and from which: the aligned and the violating ones."""
        return data.labels == 1, data.labels == 0

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:
        """Return the tensors."""
        direction = self.direction(data, seed)
        along = _projections(data.values, direction)
        there, away = (along[:, side].mean(dim=1) for side in self.sides(data))
        return {
            "direction": direction,
            "scale": along.std(dim=-1, correction=0),
            "target": there,
            "threshold": (there + away) / 2,
        }


def projection_sigma(
    values: Float[Tensor, "module sample d"], directions: Float[Tensor, "module d"]
) -> Float[Tensor, "module"]:
    """Standard deviation of the activations' projections on the direction, in activation units."""
    return _projections(values, directions).std(dim=-1, correction=0)


def _projections(
    values: Float[Tensor, "module sample d"], directions: Float[Tensor, "module d"]
) -> Float[Tensor, "module sample"]:
    return torch.einsum("msd,md->ms", values, directions)


FITTERS: Registry[Fitter] = Registry("fitter", "real_tasks.steering.fitters", Fitter)
