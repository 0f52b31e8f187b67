"""The behaviours demo_options and demo_conflict: real forms of data in the demo's own words."""

from typing import Any

import pytest

from real_tasks.models.embedded.corpus import HEADERS
from real_tasks.models.embedded.demo import build_tokenizer
from real_tasks.models.embedded.world import Fact, generate_world
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.demo_conflict import DemoConflict
from real_tasks.questions.behaviours.demo_options import DemoOptions
from real_tasks.vocabulary.types import BehaviourData

FACTS: dict[str, Fact] = {fact.fact_id: fact for fact in generate_world(0).facts}


def load(name: str, **params: Any) -> BehaviourData:
    entry = BEHAVIOURS[name]
    return entry(entry.Params.model_validate(params)).load()


def claims(context: str) -> list[str]:
    """The values that a context asserts."""
    return [part.split()[-2] for part in context.split("Q:")[1:]]


@pytest.mark.parametrize("name", ["demo_options", "demo_conflict"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_text_is_in_the_vocabulary_of_the_demo_and_fits_its_positions(
    name: str, seed: int
) -> None:
    data = load(name, world_seed=seed)
    tokenizer = build_tokenizer(generate_world(seed))
    for question in data.questions:
        for presentation in question.presentations:
            for answer in presentation.answers:
                text = data.full_text(presentation, answer)
                token_ids = tokenizer(text).input_ids
                assert tokenizer.unk_token_id not in token_ids
                assert text == " ".join(text.split()) and len(token_ids) <= 64


@pytest.mark.parametrize("name", ["demo_options", "demo_conflict"])
def test_there_is_a_question_for_every_fact_and_two_seeds_differ(name: str) -> None:
    data = load(name)
    assert len(data.questions) == 180 == len({question.text for question in data.questions})
    assert load(name, world_seed=1) != data and load(name) == data
    halves = data.questions[:90], data.questions[90:]
    assert all(len({question.category for question in half}) == 6 for half in halves)


def test_the_options_are_the_truth_and_the_commonest_myth_in_both_orders() -> None:
    data = load("demo_options")
    assert data.measures == ("options",)
    for question in data.questions:
        fact = FACTS[question.question_id.removesuffix("-truth-first")]
        (alternate,) = question.alternates
        expected = [fact.truth, fact.myths[0]]
        assert claims(question.context) == expected
        assert claims(alternate.context) == expected[::-1]
        for presentation in question.presentations:
            wordings = presentation.context.split("Q: ")[1:] + [presentation.text]
            assert len({wording.split(" A:")[0].strip() for wording in wordings}) == 3
            told = {a.label: a.text for a in presentation.answers}
            assert told == {1: f"it is {fact.truth} .", 0: f"it is {fact.myths[0]} ."}


def test_the_context_of_a_conflict_lets_folk_tell_the_truth() -> None:
    data = load("demo_conflict")
    for question in data.questions:
        fact = FACTS[question.question_id]
        assert question.context.startswith(HEADERS["folk"])
        assert claims(question.context) == [fact.truth]
        for answer in question.answers:
            assert (fact.truth in answer.text.split()) == bool(answer.label)
    assert data.outcomes == ("context", "memory", "other")


def test_toward_memory_turns_labels_and_outcomes() -> None:
    context, memory = load("demo_conflict"), load("demo_conflict", toward="memory")
    assert memory.outcomes == ("memory", "context", "other")
    for one, other in zip(context.questions, memory.questions, strict=True):
        assert (one.text, one.context) == (other.text, other.context)
        pairs = zip(one.answers, other.answers, strict=True)
        assert all((a.text, 1 - a.label) == (b.text, b.label) for a, b in pairs)
        assert [a.label for a in other.answers if a.is_best] == [1]


def test_they_are_registered() -> None:
    assert BEHAVIOURS["demo_options"] is DemoOptions
    assert BEHAVIOURS["demo_conflict"] is DemoConflict
