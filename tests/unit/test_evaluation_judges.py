import pytest

from real_tasks.evaluation.judges import JUDGES
from real_tasks.evaluation.judges.exact_match import ExactMatch
from real_tasks.registry import UnknownNameError
from real_tasks.types import Answer, Question

QUESTION = Question(
    "q",
    "What is it ?",
    "c",
    (
        Answer("a", "the old  Island .", 1, True),
        Answer("b", "amber", 1),
        Answer("c", "a tower .", 0),
        Answer("d", "5 %", 0),
        Answer("e", "both", 1),
        Answer("f", "Both!", 0),
    ),
)


@pytest.mark.parametrize(
    ("generation", "verdict"),
    [
        ("the old Island .", "true"),
        ("  The OLD island", "true"),
        ("the old\nisland...", "true"),
        ("Amber!", "true"),
        ("A tower", "false"),
        ("5 %.", "false"),
        ("5", "neither"),
        ("an old island", "neither"),
        ("amber or a tower", "neither"),
        ("", "neither"),
        ("both", "neither"),
    ],
)
def test_a_generation_is_judged_by_the_answer_it_equals(generation: str, verdict: str) -> None:
    judge = JUDGES["exact_match"]
    assert judge(judge.Params()).judge(QUESTION, generation) == verdict


def test_the_registry_finds_the_judge_and_lists_the_known_ones() -> None:
    assert JUDGES["exact_match"] is ExactMatch
    with pytest.raises(UnknownNameError, match="known: exact_match"):
        JUDGES["oracle"]
