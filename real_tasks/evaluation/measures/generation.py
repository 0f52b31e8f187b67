"""The measure ``generation``: greedily generated answers, called true, false or neither."""

import math
from collections.abc import Sequence
from typing import ClassVar

from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.evaluation.fluency import FLUENCY, fluency
from real_tasks.evaluation.judges import Judgement
from real_tasks.evaluation.measures import MEASURES, MeasureInput, Reading
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.types import VERDICTS, BehaviourData


@MEASURES.register("generation")
class Generation:
    """Shares of the verdicts, under the names that the behaviour gives them.

    Where the judge says so, also the share of informative answers (``info_share``), of those that
    are both true and informative (``true_info_share``), and the means of its own numbers. Whatever
    the judge, what the answers are worth as text, see `fluency`.
    """

    generates: ClassVar[bool] = True

    @staticmethod
    def metrics(data: BehaviourData) -> tuple[str, ...]:
        """Share of each of the behaviour's outcomes, and what answers are worth as text."""
        return (*(f"{outcome}_share" for outcome in data.outcomes), *FLUENCY)

    @staticmethod
    def objective(data: BehaviourData) -> tuple[str, ...]:
        """Share of the aligned outcome."""
        return (f"{data.outcomes[0]}_share",)

    def __init__(self, given: MeasureInput) -> None:
        self._given = given

    def read(self, intervention: Intervention | None) -> Reading:
        """Generate an answer to every question and have it judged."""
        given = self._given
        said = generate_answers(
            given.loaded,
            given.data,
            given.questions,
            intervention,
            given.config.max_new_tokens,
            given.config.batch_tokens,
        )
        asked = [given.data.questions[index] for index in given.questions]
        judged = given.judge.judge(list(zip(asked, said, strict=True)))
        verdicts = tuple(one.verdict for one in judged)
        shares = {
            name: [float(verdict == outcome) for verdict in verdicts]
            for outcome, name in zip(VERDICTS, self.metrics(given.data), strict=False)
        }
        worth = fluency(given, said)
        return Reading(shares | _further(judged) | worth, tuple(said), verdicts)


def _further(judged: Sequence[Judgement]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    if judged and all(one.informative is not None for one in judged):
        found["info_share"] = [float(bool(one.informative)) for one in judged]
        found["true_info_share"] = [
            float(bool(one.informative) and one.verdict == "true") for one in judged
        ]
    for name in dict.fromkeys(name for one in judged for name in one.scores):
        found[name] = [one.scores.get(name, math.nan) for one in judged]
    return found
