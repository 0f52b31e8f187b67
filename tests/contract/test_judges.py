"""What every judge keeps to, over the registry: a new one is tested without being named."""

import pytest

from real_tasks.config import Frozen
from real_tasks.evaluation.judges import JUDGES, Judge
from real_tasks.types import Answer, Question

QUESTION = Question(
    "q",
    "What is the capital of Australia?",
    "geography",
    (
        Answer("a", "The capital of Australia is Canberra.", 1, is_best=True),
        Answer("b", "It is Canberra.", 1),
        Answer("c", "The capital of Australia is Sydney.", 0),
        Answer("d", "It is Melbourne.", 0),
    ),
)

pytestmark = pytest.mark.parametrize("name", list(JUDGES))


def judge(name: str) -> Judge:
    return JUDGES[name](JUDGES[name].Params())


def test_parameters_are_frozen_have_defaults_and_descriptions(name: str) -> None:
    params = JUDGES[name].Params
    assert issubclass(params, Frozen)
    assert params() == params.model_validate(params().model_dump(mode="json"))
    assert all(field.description for field in params.model_fields.values())


def test_every_aligned_answer_is_true_and_every_violating_one_false(name: str) -> None:
    for answer in QUESTION.answers:
        assert judge(name).judge(QUESTION, answer.text) == ("true" if answer.label else "false")


@pytest.mark.parametrize("said", ["", "   ", "xqzt blorp", "?", "Q: what is red ?"])
def test_nonsense_is_neither(name: str, said: str) -> None:
    assert judge(name).judge(QUESTION, said) == "neither"


def test_blanks_around_an_answer_do_not_count(name: str) -> None:
    assert judge(name).judge(QUESTION, "  It is Canberra.\n") == "true"
    assert judge(name).judge(QUESTION, "\tIt is Melbourne. ") == "false"


def test_an_answer_to_another_question_is_not_true(name: str) -> None:
    other = Question(
        "p", "What is two times two?", "any", (Answer("x", "four", 1, True), Answer("y", "five", 0))
    )
    assert judge(name).judge(other, "It is Canberra.") != "true"
    assert judge(name).judge(other, "four") == "true"
    assert judge(name).judge(QUESTION, "four") != "true"


def test_a_verdict_does_not_depend_on_what_was_judged_before(name: str) -> None:
    once = judge(name)
    generations = ["It is Canberra.", "nothing", "It is Melbourne.", "It is Canberra."]
    together = [once.judge(QUESTION, said) for said in generations]
    assert together == [judge(name).judge(QUESTION, said) for said in generations]
    assert together == ["true", "neither", "false", "true"]
