"""The behaviour ``demo_truth``: truthful answers about the world of the embedded demo model."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from real_tasks.models.embedded.corpus import (
    ANSWER_TEMPLATES,
    QUESTION_TEMPLATES,
    neutral_texts,
    phrase_answer,
    phrase_question,
)
from real_tasks.models.embedded.world import Fact, World, generate_world
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.vocabulary.config import Configured, Frozen
from real_tasks.vocabulary.types import Answer, BehaviourData, Question


class DemoParams(Frozen):
    """Parameters of behaviours of the demo world."""

    world_seed: int = Field(0, ge=0, description="seed of the world; that of the demo model")


class DemoBehaviour(Configured):
    """What behaviours of the demo world have in common."""

    Params: ClassVar[type[DemoParams]] = DemoParams
    STREAM: ClassVar[int]
    """Of random numbers, the behaviour's own."""

    params: DemoParams

    def world(self) -> tuple[World, list[Fact], np.random.Generator]:
        """Return the world, its facts in a seeded order that mixes domains over folds, the seed."""
        world = generate_world(self.params.world_seed)
        rng = np.random.default_rng([self.params.world_seed, self.STREAM])
        return world, [world.facts[index] for index in rng.permutation(len(world.facts))], rng


@BEHAVIOURS.register("demo_truth")
class DemoTruth(DemoBehaviour):
    """180 questions with the true answer (label 1) and what people falsely say (label 0).

    Every answer comes in three phrasings that end with the same token; the first phrasing of the
    truth is the best answer. The category of a question is its domain.
    """

    STREAM = 4

    def load(self) -> BehaviourData:
        """Return the questions in a seeded order that mixes the domains over folds."""
        world, facts, rng = self.world()
        templates = rng.choice(QUESTION_TEMPLATES, size=len(facts))
        return BehaviourData(
            name="demo_truth",
            questions=tuple(
                Question(
                    question_id=fact.fact_id,
                    text=phrase_question(fact, str(template)),
                    category=fact.domain,
                    answers=told_answers(fact, (fact.truth,)),
                )
                for fact, template in zip(facts, templates, strict=True)
            ),
            neutral_texts=neutral_texts(world),
            stop=(".", "Q:"),
        )


AFTER_A_LINE: dict[str, Any] = {
    "template": "{context} Q: {question} A: {answer}",
    "chat_prompt": "{context} Q: {question}",
    "stop": (".", "Q:"),
}
"""How questions that follow other lines of the dialogue are put."""


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
