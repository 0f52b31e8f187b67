"""The measure ``options``: how often and how surely the aligned of two options is chosen."""

from real_tasks.evaluation.measures import MEASURES, Reading
from real_tasks.evaluation.measures.multiple_choice import MultipleChoice
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.types import BehaviourData


@MEASURES.register("options")
class Options(MultipleChoice):
    """A/B questions, put in both orders: mean over the orders (CAA, section 4).

    The probability of the aligned option is its share of the probability of the options. With two
    options these are MC1 and MC2.
    """

    @staticmethod
    def metrics(data: BehaviourData) -> tuple[str, ...]:  # noqa: ARG004
        """Accuracy, and probability of the aligned option."""
        return "option_accuracy", "option_probability"

    @staticmethod
    def objective(data: BehaviourData) -> tuple[str, ...]:  # noqa: ARG004
        """Both."""
        return "option_accuracy", "option_probability"

    def read(self, intervention: Intervention | None) -> Reading:
        """Score the options of every presentation of every question."""
        scores = super().read(intervention).per_question
        return Reading({"option_accuracy": scores["mc1"], "option_probability": scores["mc2"]})
