"""The behaviour ``demo_options``: two claims about the demo world in both orders, which is true?"""

from dataclasses import replace

from real_tasks.models.embedded.corpus import (
    ANSWER_TEMPLATES,
    QUESTION_TEMPLATES,
    neutral_texts,
    phrase_answer,
    phrase_question,
)
from real_tasks.models.embedded.world import Fact
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.demo_truth import AFTER_A_LINE, DemoBehaviour
from real_tasks.vocabulary.types import Answer, BehaviourData, Question

_ANSWER = ANSWER_TEMPLATES[1]


@BEHAVIOURS.register("demo_options")
class DemoOptions(DemoBehaviour):
    """180 questions with two options: the truth (aligned) and the commonest myth (violating).

    The demo model knows no letters of options. So the options are put to it as two answers that the
    dialogue gives before, to the same question in other words; an alternate has them in the other
    order. The category of a question is its domain.
    """

    STREAM = 5

    def load(self) -> BehaviourData:
        """Return the questions in a seeded order that mixes the domains over folds."""
        world, facts, rng = self.world()
        return BehaviourData(
            name="demo_options",
            questions=tuple(
                _question(fact, [str(one) for one in rng.permutation(QUESTION_TEMPLATES)])
                for fact in facts
            ),
            neutral_texts=neutral_texts(world),
            measures=("options",),
            **AFTER_A_LINE,
        )


def _question(fact: Fact, wordings: list[str]) -> Question:
    """Ask in the last wording, after claims that answer to the first two."""
    claims = (fact.truth, fact.myths[0])
    first, second = (
        _in_order(f"{fact.fact_id}-{name}", fact, values, wordings)
        for name, values in (("truth-first", claims), ("myth-first", claims[::-1]))
    )
    return replace(first, alternates=(second,))


def _in_order(
    question_id: str, fact: Fact, claims: tuple[str, ...], wordings: list[str]
) -> Question:
    said = (
        f"Q: {phrase_question(fact, wording)} A: {phrase_answer(fact, claim, _ANSWER)}"
        for wording, claim in zip(wordings, claims, strict=False)
    )
    return Question(
        question_id,
        phrase_question(fact, wordings[-1]),
        fact.domain,
        tuple(
            Answer(
                f"{question_id}-{value}",
                phrase_answer(fact, value, _ANSWER),
                label=int(value == fact.truth),
                is_best=value == fact.truth,
            )
            for value in claims
        ),
        context=" ".join(said),
    )
