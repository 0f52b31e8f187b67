"""Measures: what is measured of a model's behaviour on questions, steered or not; one file each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from real_tasks.evaluation.judges import Judge
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import BehaviourData, Verdict


@dataclass(frozen=True)
class Reading:
    """What a measure found with one intervention.

    Attributes:
        per_question: for every metric a number per question, in the order of the questions.
        generations: the generated answer of each question, where the measure generates.
        verdicts: what the judge called each of them.
    """

    per_question: Mapping[str, Sequence[float]]
    generations: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True)
class MeasureInput:
    """What a measure works on.

    Attributes:
        questions: indices into ``data.questions``.
        judge: judges what is generated.
        share_prompts: whether the common beginning of prompts may be read for all at once; see
            `Intervention.shares_prompts`.
    """

    loaded: LoadedModel
    data: BehaviourData
    questions: Sequence[int]
    config: EvaluationConfig
    judge: Judge
    share_prompts: bool = True


class Measure(Protocol):
    """A way of measuring, registered by ``@MEASURES.register("name")``.

    Attributes:
        generates: whether the model writes answers, which a judge reads.
    """

    generates: ClassVar[bool]

    @staticmethod
    def metrics(data: BehaviourData) -> tuple[str, ...]:
        """Return the names of the metrics that there always are.

        Of those of its objective more is better.
        """
        ...

    @staticmethod
    def objective(data: BehaviourData) -> tuple[str, ...]:
        """Return the metrics whose sum decides K and alpha, unless the experiment says others."""
        ...

    def __init__(self, given: MeasureInput) -> None:
        """Encode the prompts once."""

    def read(self, intervention: Intervention | None) -> Reading:
        """Measure the model under an intervention, None for the unsteered model."""
        ...


MEASURES: Registry[Measure] = Registry("measure", "real_tasks.evaluation.measures", Measure)
