"""Localizers: each ranks modules of a model by how well they tell aligned from violating answers.

A localizer is one file here: a subclass of `Localizer` registered by
``@LOCALIZERS.register("name")``. All that tables, pictures and plans say of it comes from there.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from real_tasks.vocabulary.config import Configured
from real_tasks.vocabulary.few_shot import FewShot
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import Aspect, LocalizerInput, LocalizerResult, ModuleKind, Reading

EQUAL_WEIGHTS = "_equal_weights"
"""Ends the name of the method that steers a localizer's modules, all with a strength of 1."""

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class ScoreMeaning:
    """What a localizer's score is: its column, its name, and the score of chance, if any."""

    column: str = "score"
    label: str = "score"
    center: float | None = None

    @property
    def short(self) -> str:
        """Its name without what stands in brackets."""
        return self.label.split(" (")[0]


class Localizer(Configured, ABC):
    """Scores a shard of modules.

    Attributes:
        weighting: whether steering strengths follow the scores or are all 1.
        stochastic: whether the seed changes the scores.
        uses_effects: whether it needs `LocalizerInput.effect`, and with it the model itself.
        uses_weights: likewise `LocalizerInput.weight`.
        asks: what the samples must have; data without it are refused before anything is read.
        reading: the tokens at which activations are read.
        beside: by kind of its modules, a whole part that it sees too (`LocalizerInput.beside`).
        label: what people read; its name where empty.
        meaning: what maps and scatter plots show of its scores.
        explained: how to read its scores, for a report; nothing is said where empty.
        place: where it stands in tables, the lowest first.
    """

    weighting: ClassVar[Literal["score", "equal"]] = "equal"
    stochastic: ClassVar[bool] = False
    uses_effects: ClassVar[bool] = False
    uses_weights: ClassVar[bool] = False
    asks: ClassVar[frozenset[Aspect]] = frozenset()
    reading: ClassVar[Reading] = "last"
    beside: ClassVar[Mapping[ModuleKind, ModuleKind]] = {}
    label: ClassVar[str] = ""
    meaning: ClassVar[ScoreMeaning] = ScoreMeaning()
    explained: ClassVar[str] = ""
    place: ClassVar[int] = 50

    @property
    def most_questions(self) -> int | None:
        """Most validation questions that effects are measured on, evenly spaced; None: all."""
        return None

    @property
    def few_shot(self) -> FewShot | None:
        """The demonstrations before the prompts that effects are measured on; None: none."""
        return None

    def check(self, d: int) -> None:  # noqa: B027
        """Look before expensive work whether the parameters fit modules of width ``d``.

        Raises:
            UserInputError: they do not.
        """

    @abstractmethod
    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:
        """Score every module of the shard.

        The result of a module depends on that module's data, its identity and the seed alone, never
        on what else is in the shard.

        Raises:
            UserInputError: the parameters do not fit the data, or there is no `effect` where
                `uses_effects` says that it is needed.
        """

    def flops(self, d: int, n_train: float) -> float:  # noqa: ARG002
        """Return the FLOPs of a module of width ``d`` with ``n_train`` training answers, to plan.

        What the language model does for an effect is counted elsewhere. 0: not worth a mention.
        """
        return 0.0

    def peak_bytes(self, d: int, n_modules: int, n_train: float, n_seen: float) -> int:  # noqa: ARG002
        """Return the peak memory of a shard, to plan: the activations of all ``n_seen`` answers."""
        return round(n_modules * n_seen * d * _FLOAT32_BYTES)


LOCALIZERS: Registry[Localizer] = Registry("localizer", "real_tasks.localizers", Localizer)


def entry_of(name: str) -> type[Localizer]:
    """Return what is said of a localizer; the defaults for one of old tables that is gone."""
    if name not in LOCALIZERS:
        return Localizer
    return LOCALIZERS[name]
