"""What every judge keeps to, on two questions that most people can answer."""

from collections.abc import Callable, MutableMapping
from typing import Any, ClassVar

import pytest

from real_tasks.contract.base import Contract
from real_tasks.evaluation.judges import JUDGES, Judge, Judgement
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import VERDICTS, Answer, Question

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
OTHER = Question(
    "p", "What is two times two?", "any", (Answer("x", "four", 1, True), Answer("y", "five", 0))
)
SAID = ["It is Canberra.", "nothing", "It is Melbourne.", "It is Canberra.", "It is Sydney"]

Make = Callable[..., Judge]


def verdicts(judge: Judge, said: list[str], question: Question = QUESTION) -> list[str]:
    """Return what the judge calls answers to one question."""
    return [one.verdict for one in judge.judge([(question, text) for text in said])]


class JudgeContract(Contract):
    """Tests of a judge; one that needs a model or a service overrides the fixture `params`.

    Attributes:
        knows_answers: whether it looks at the known answers of the question it is asked about.
        remembers: whether its judgements are so costly that it keeps them in its memory.
    """

    registry: ClassVar[Registry[Any]] = JUDGES
    knows_answers: ClassVar[bool] = True
    remembers: ClassVar[bool] = False

    @pytest.fixture
    def make(self, name: str, params: dict[str, Any]) -> Make:
        """Make the judge, with a memory of its own unless one is given."""

        def made(memory: MutableMapping[str, str] | None = None) -> Judge:
            return JUDGES.made(name, params, {} if memory is None else memory)

        return made

    def test_every_aligned_answer_is_true_and_every_violating_one_false(self, make: Make) -> None:
        said = [answer.text for answer in QUESTION.answers]
        assert verdicts(make(), said) == ["true", "true", "false", "false"]

    def test_nonsense_is_neither(self, make: Make) -> None:
        said = ["", "   ", "xqzt blorp", "?", "Q: what is red ?"]
        assert verdicts(make(), said) == ["neither"] * 5

    def test_blanks_around_an_answer_do_not_count(self, make: Make) -> None:
        said = ["  It is Canberra.\n", "\tIt is Melbourne. "]
        assert verdicts(make(), said) == ["true", "false"]
        stripped = [(QUESTION, text.strip()) for text in said]
        assert make().judge([(QUESTION, text) for text in said]) == make().judge(stripped)

    def test_an_answer_to_another_question_is_not_true(self, make: Make) -> None:
        assert verdicts(make(), ["four"], OTHER) == ["true"]
        if self.knows_answers:
            assert verdicts(make(), ["It is Canberra."], OTHER) != ["true"]
            assert verdicts(make(), ["four"]) != ["true"]

    def test_nothing_to_judge_is_no_judgement(self, make: Make) -> None:
        assert make().judge([]) == []

    def test_the_order_is_kept_whatever_questions_are_mixed(self, make: Make) -> None:
        mixed = [(QUESTION, "It is Melbourne."), (OTHER, "four"), (QUESTION, "It is Canberra.")]
        mixed += [(OTHER, "five"), (QUESTION, "It is Melbourne.")]
        found = [one.verdict for one in make().judge(mixed)]
        assert found == ["false", "true", "true", "false", "false"]
        assert make().judge(mixed[::-1]) == make().judge(mixed)[::-1]

    def test_a_verdict_does_not_depend_on_what_else_is_judged(self, make: Make) -> None:
        together = make().judge([(QUESTION, text) for text in SAID])
        once = make()
        assert [once.judge([(QUESTION, text)])[0] for text in SAID] == together
        assert [make().judge([(QUESTION, text)])[0] for text in SAID] == together
        assert [one.verdict for one in together[:4]] == ["true", "neither", "false", "true"]

    def test_judgements_are_all_of_one_form(self, make: Make) -> None:
        judged = make().judge([(QUESTION, text) for text in SAID])
        assert all(isinstance(one, Judgement) and one.verdict in VERDICTS for one in judged)
        assert len({one.informative is None for one in judged}) == 1
        assert len({tuple(one.scores) for one in judged}) == 1
        assert all(isinstance(value, float) for one in judged for value in one.scores.values())

    def test_costly_judgements_are_remembered_and_others_are_not(self, make: Make) -> None:
        memory: dict[str, str] = {}
        first = make(memory).judge([(QUESTION, text) for text in SAID])
        assert bool(memory) == self.remembers
        kept = dict(memory)
        assert make(memory).judge([(QUESTION, text) for text in SAID]) == first
        assert memory == kept

    def test_making_a_judge_asks_and_loads_nothing(self, name: str) -> None:
        assert JUDGES.made(name, {}, {}).judge([]) == []
