"""Behaviours: data sets of questions with aligned and violating answers, one file each."""

from typing import Any, ClassVar, Protocol

from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import BehaviourData


class Behaviour(Protocol):
    """A source of questions, registered by ``@BEHAVIOURS.register("name")``."""

    Params: ClassVar[type[Frozen]]

    def __init__(self, params: Any) -> None:
        """Keep the validated parameters, an instance of ``Params``."""

    def load(self) -> BehaviourData:
        """Return the questions, the same ones for the same parameters."""
        ...


BEHAVIOURS: Registry[Behaviour] = Registry(
    "behaviour", "real_tasks.questions.behaviours", Behaviour
)
