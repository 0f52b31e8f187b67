"""Judges: each calls a generated answer true, false or neither; one file each."""

import hashlib
import importlib
import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from real_tasks.vocabulary.config import Configured, Frozen
from real_tasks.vocabulary.errors import UserInputError, WorkFailedError
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import Question, Verdict


@dataclass(frozen=True)
class Judgement:
    """What a judge makes of a generated answer.

    Attributes:
        verdict: ``true`` (aligned), ``false`` (violating) or ``neither``.
        informative: whether it says anything to the question; None where the judge does not tell.
        scores: further numbers of the judge's, by the names of metrics; higher is better.
    """

    verdict: Verdict
    informative: bool | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


class JudgeUnavailableError(WorkFailedError):
    """A service that judges did not answer; what it had judged is kept, so running again goes on.

    The message says how many answers were judged and what failed.
    """


class Judge(Protocol):
    """Judges generated answers, registered by ``@JUDGES.register("name")``.

    Attributes:
        Params: its parameters.

    A judge that needs optional libraries names their modules in a class attribute ``libraries``;
    they are looked for before a run.
    """

    Params: ClassVar[type[Frozen]]

    def __init__(self, params: Any, memory: MutableMapping[str, str]) -> None:
        """Keep the validated parameters, an instance of ``Params``, and the memory.

        In the memory costly judgements are kept by a hash of all that decides them, so that a run
        which was stopped does not ask again.
        """

    def judge(self, answers: Sequence[tuple[Question, str]]) -> list[Judgement]:
        """Judge generated answers, each with its question; the result is in their order.

        Raises:
            UserInputError: the judge cannot be had (says how to mend it).
            JudgeUnavailableError: a service is down.
        """
        ...


class ConfiguredJudge(Configured):
    """A judge that keeps its parameters and its memory; nothing is loaded or asked yet."""

    def __init__(self, params: Any, memory: MutableMapping[str, str]) -> None:
        """See `Judge`."""
        super().__init__(params)
        self._memory = memory


def memory_key(*parts: object) -> str:
    """Return the key of a judgement in a judge's memory: a hash of all that decides it, as JSON."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def judging_library(name: str) -> Any:
    """Import a module of an optional library that judges use.

    Raises:
        UserInputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserInputError(
            f"this judge needs the Python module {error.name!r}, which is not installed; run "
            "pip install 'real-steering[judges]', or choose another evaluation.judge"
        ) from error


JUDGES: Registry[Judge] = Registry("judge", "real_tasks.evaluation.judges", Judge)
