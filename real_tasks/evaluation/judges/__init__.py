"""Judges: each calls a generated answer true, false or neither; one file each."""

from typing import Any, ClassVar, Protocol

from real_tasks.config import Frozen
from real_tasks.registry import Registry
from real_tasks.types import Question, Verdict


class Judge(Protocol):
    """Judges generated answers, registered by ``@JUDGES.register("name")``."""

    Params: ClassVar[type[Frozen]]

    def __init__(self, params: Any) -> None:
        """Keep the validated parameters, an instance of ``Params``."""

    def judge(self, question: Question, generation: str) -> Verdict:
        """Return ``true`` (an aligned answer), ``false`` (a violating one) or ``neither``."""
        ...


JUDGES: Registry[type[Judge]] = Registry("judge", "real_tasks.evaluation.judges")
