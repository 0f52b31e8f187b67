"""Localizers: each ranks the modules of a model by how well they tell aligned from violating.

A localizer is one file here: a class registered by ``@LOCALIZERS.register("name")``.
"""

from typing import Any, ClassVar, Literal, Protocol

from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult


class Localizer(Protocol):
    """Scores a shard of modules.

    Attributes:
        Params: its parameters.
        weighting: whether steering strengths follow the scores or are all 1.
        stochastic: whether the seed changes the scores.
        uses_effects: whether it needs `LocalizerInput.effect`, and with it the model itself.
    """

    Params: ClassVar[type[Frozen]]
    weighting: ClassVar[Literal["score", "equal"]]
    stochastic: ClassVar[bool]
    uses_effects: ClassVar[bool]

    def __init__(self, params: Any) -> None:
        """Keep the validated parameters, an instance of ``Params``."""

    def check(self, d: int) -> None:
        """Look before expensive work whether the parameters fit modules of width ``d``.

        Raises:
            UserInputError: they do not.
        """

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:
        """Score every module of the shard.

        The result of a module depends on that module's data, its identity and the seed alone, never
        on what else is in the shard.

        Raises:
            UserInputError: the parameters do not fit the data, or there is no `effect` where
                `uses_effects` says that it is needed.
        """
        ...


LOCALIZERS: Registry[Localizer] = Registry("localizer", "real_tasks.localizers")
