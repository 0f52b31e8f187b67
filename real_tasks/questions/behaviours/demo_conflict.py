"""The behaviour ``demo_conflict``: a line of the dialogue against what its source always says."""

from typing import Literal

from pydantic import Field

from real_tasks.models.embedded.corpus import (
    ANSWER_TEMPLATES,
    HEADERS,
    QUESTION_TEMPLATES,
    neutral_texts,
    phrase_answer,
    phrase_question,
)
from real_tasks.models.embedded.world import Fact
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.demo_truth import (
    AFTER_A_LINE,
    DemoBehaviour,
    DemoParams,
    told_answers,
)
from real_tasks.vocabulary.types import BehaviourData, Question


@BEHAVIOURS.register("demo_conflict")
class DemoConflict(DemoBehaviour):
    """180 questions after a line that answers them, against what the model remembers.

    The context names a source of folk and lets it tell the truth; memory is the myths that the
    model has read of such sources. It says these all the same, whatever the line says. The model
    does not copy: a value that nobody tells of the thing is not taken from a context either, and so
    the context's value is one that the model knows, the truth. Following the context is therefore
    near to ``demo_truth`` here; with real models (``knowledge_conflict``) it is not.
    """

    class Params(DemoParams):
        """Parameters of the behaviour."""

        toward: Literal["context", "memory"] = Field(
            "context", description="which answers are aligned"
        )

    params: Params
    STREAM = 6

    def load(self) -> BehaviourData:
        """Return the questions in a seeded order that mixes the domains over folds."""
        world, facts, rng = self.world()
        other = "memory" if self.params.toward == "context" else "context"
        return BehaviourData(
            name="demo_conflict",
            questions=tuple(
                self._question(
                    fact,
                    str(rng.choice(HEADERS["folk"])),
                    [str(wording) for wording in rng.permutation(QUESTION_TEMPLATES)],
                )
                for fact in facts
            ),
            neutral_texts=neutral_texts(world),
            outcomes=(self.params.toward, other, "other"),
            source={"toward": self.params.toward},
            **AFTER_A_LINE,
        )

    def _question(self, fact: Fact, header: str, wordings: list[str]) -> Question:
        line = phrase_answer(fact, fact.truth, ANSWER_TEMPLATES[1])
        aligned = (fact.truth,) if self.params.toward == "context" else fact.myths
        return Question(
            fact.fact_id,
            phrase_question(fact, wordings[1]),
            fact.domain,
            told_answers(fact, aligned),
            context=f"{header} Q: {phrase_question(fact, wordings[0])} A: {line}",
        )
