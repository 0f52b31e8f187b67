"""The measure ``multiple_choice``: MC0 to MC3 of TruthfulQA, from log-likelihoods of answers."""

from typing import ClassVar

from real_tasks.evaluation.answers.choices import choice_scores, encode_choices
from real_tasks.evaluation.measures import MEASURES, MeasureInput, Reading
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.types import BehaviourData


@MEASURES.register("multiple_choice")
class MultipleChoice:
    """Scores every answer by its log-likelihood; a question's alternates are averaged."""

    generates: ClassVar[bool] = False

    @staticmethod
    def metrics(data: BehaviourData) -> tuple[str, ...]:  # noqa: ARG004
        """MC0 to MC3, see `real_tasks.evaluation.answers.mc_scores`."""
        return "mc0", "mc1", "mc2", "mc3"

    @staticmethod
    def objective(data: BehaviourData) -> tuple[str, ...]:  # noqa: ARG004
        """MC1 + MC2."""
        return "mc1", "mc2"

    def __init__(self, given: MeasureInput) -> None:
        self._loaded = given.loaded
        self._encoded = encode_choices(
            *(given.loaded, given.data, given.questions),
            given.config.batch_tokens,
            given.share_prompts,
        )

    def read(self, intervention: Intervention | None) -> Reading:
        """Score all answers."""
        return Reading(choice_scores(self._loaded, self._encoded, intervention))
