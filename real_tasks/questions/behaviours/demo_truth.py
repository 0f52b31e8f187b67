"""The behaviour ``demo_truth``: truthful answers about the world of the embedded demo model."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from real_tasks.models.embedded.corpus import (
    ANSWER_TEMPLATES,
    QUESTION_TEMPLATES,
    neutral_texts,
    phrase_answer,
    phrase_question,
)
from real_tasks.models.embedded.world import Fact, generate_world
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import Answer, BehaviourData, Question


class DemoParams(Frozen):
    """Parameters of behaviours of the demo world."""

    world_seed: int = Field(0, ge=0, description="seed of the world; that of the demo model")


@BEHAVIOURS.register("demo_truth")
class DemoTruth:
    """180 questions with the true answer (label 1) and what people falsely say (label 0).

    Every answer comes in three phrasings that end with the same token; the first phrasing of the
    truth is the best answer. The category of a question is its domain.
    """

    Params: ClassVar[type[DemoParams]] = DemoParams

    def __init__(self, params: DemoParams) -> None:
        self.params = params

    def load(self) -> BehaviourData:
        """Return the questions in a seeded order that mixes the domains over folds."""
        world = generate_world(self.params.world_seed)
        rng = np.random.default_rng([self.params.world_seed, 4])
        order = rng.permutation(len(world.facts))
        templates = rng.choice(QUESTION_TEMPLATES, size=len(order))
        questions = tuple(
            _question(world.facts[index], str(template))
            for index, template in zip(order, templates, strict=True)
        )
        return BehaviourData(
            name="demo_truth",
            questions=questions,
            neutral_texts=neutral_texts(world),
            stop=(".", "Q:"),
        )


def _question(fact: Fact, template: str) -> Question:
    return Question(
        question_id=fact.fact_id,
        text=phrase_question(fact, template),
        category=fact.domain,
        answers=told_answers(fact, (fact.truth,)),
    )


def told_answers(fact: Fact, aligned: tuple[str, ...]) -> tuple[Answer, ...]:
    """Return all that is told of a fact, in every phrasing; the first aligned one is the best."""
    return tuple(
        Answer(
            answer_id=f"{fact.fact_id}-{value}-{phrasing}",
            text=phrase_answer(fact, value, template),
            label=int(value in aligned),
            is_best=value == aligned[0] and phrasing == 0,
        )
        for value in (fact.truth, *fact.myths)
        for phrasing, template in enumerate(ANSWER_TEMPLATES)
    )
