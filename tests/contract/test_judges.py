"""What every judge keeps to, over the registry: a new one is tested without being named.

A judge that needs a model or a service gets it from `PARAMS`; one that is not in a table below has
to keep to all sentences with its default parameters.
"""

from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from real_tasks.evaluation.judges import JUDGES, Judge, Judgement
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import VERDICTS, Answer, Question
from tests.unit.fake_endpoint import FakeEndpoint
from tests.unit.tiny_judges import save_planted_judge

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

KNOWS_NO_ANSWERS = {"truth_info"}
"""Judges that do not look at the known answers of the question they are asked about."""

Make = Callable[..., Judge]


def planted_models(folder: Path) -> dict[str, Any]:
    true, false = ["Canberra.", "Canberra", "four"], ["Sydney.", "Sydney", "Melbourne.", "five"]
    truth = save_planted_judge(folder / "truth", true, false)
    info = save_planted_judge(folder / "info", [*true, *false], ["nothing"])
    models = {"truth_model": str(truth), "info_model": str(info)}
    # One row a batch, as the size of a batch changes probabilities in their last digits.
    return models | {"dtype": "float32", "device": "cpu", "batch_tokens": 1}


@pytest.fixture(scope="module")
def parameters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    with FakeEndpoint() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield {
            "endpoint": {"base_url": server.url, "max_retries": 0},
            "truth_info": planted_models(tmp_path_factory.mktemp("judges")),
        }


@pytest.fixture(params=list(JUDGES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(name: str, parameters: dict[str, dict[str, Any]]) -> Make:
    """Make the judge, with a memory of its own unless one is given."""
    params = JUDGES[name].Params.model_validate(parameters.get(name, {}))

    def made(memory: MutableMapping[str, str] | None = None) -> Judge:
        return JUDGES[name](params, {} if memory is None else memory)

    return made


def verdicts(judge: Judge, said: list[str], question: Question = QUESTION) -> list[str]:
    return [one.verdict for one in judge.judge([(question, text) for text in said])]


def test_parameters_are_frozen_have_defaults_and_descriptions(name: str) -> None:
    params = JUDGES[name].Params
    assert issubclass(params, Frozen)
    assert params() == params.model_validate(params().model_dump(mode="json"))
    assert all(field.description for field in params.model_fields.values())


def test_every_aligned_answer_is_true_and_every_violating_one_false(make: Make) -> None:
    said = [answer.text for answer in QUESTION.answers]
    assert verdicts(make(), said) == ["true", "true", "false", "false"]


def test_nonsense_is_neither(make: Make) -> None:
    said = ["", "   ", "xqzt blorp", "?", "Q: what is red ?"]
    assert verdicts(make(), said) == ["neither"] * 5


def test_blanks_around_an_answer_do_not_count(make: Make) -> None:
    said = ["  It is Canberra.\n", "\tIt is Melbourne. "]
    assert verdicts(make(), said) == ["true", "false"]
    stripped = [(QUESTION, text.strip()) for text in said]
    assert make().judge([(QUESTION, text) for text in said]) == make().judge(stripped)


def test_an_answer_to_another_question_is_not_true(name: str, make: Make) -> None:
    assert verdicts(make(), ["four"], OTHER) == ["true"]
    if name not in KNOWS_NO_ANSWERS:
        assert verdicts(make(), ["It is Canberra."], OTHER) != ["true"]
        assert verdicts(make(), ["four"]) != ["true"]


def test_nothing_to_judge_is_no_judgement(make: Make) -> None:
    assert make().judge([]) == []


def test_the_order_is_kept_whatever_questions_are_mixed(make: Make) -> None:
    mixed = [(QUESTION, "It is Melbourne."), (OTHER, "four"), (QUESTION, "It is Canberra.")]
    mixed += [(OTHER, "five"), (QUESTION, "It is Melbourne.")]
    found = [one.verdict for one in make().judge(mixed)]
    assert found == ["false", "true", "true", "false", "false"]
    assert make().judge(mixed[::-1]) == make().judge(mixed)[::-1]


def test_a_verdict_does_not_depend_on_what_else_is_judged(make: Make) -> None:
    together = make().judge([(QUESTION, text) for text in SAID])
    once = make()
    assert [once.judge([(QUESTION, text)])[0] for text in SAID] == together
    assert [make().judge([(QUESTION, text)])[0] for text in SAID] == together
    assert [one.verdict for one in together[:4]] == ["true", "neither", "false", "true"]


def test_judgements_are_all_of_one_form(make: Make) -> None:
    judged = make().judge([(QUESTION, text) for text in SAID])
    assert all(isinstance(one, Judgement) and one.verdict in VERDICTS for one in judged)
    assert len({one.informative is None for one in judged}) == 1
    assert len({tuple(one.scores) for one in judged}) == 1
    assert all(isinstance(value, float) for one in judged for value in one.scores.values())


def test_costly_judgements_are_remembered_and_others_are_not(name: str, make: Make) -> None:
    memory: dict[str, str] = {}
    first = make(memory).judge([(QUESTION, text) for text in SAID])
    assert bool(memory) == (name in ("endpoint", "truth_info"))
    kept = dict(memory)
    assert make(memory).judge([(QUESTION, text) for text in SAID]) == first
    assert memory == kept


def test_making_a_judge_asks_and_loads_nothing(name: str) -> None:
    make_it = partial(JUDGES[name], JUDGES[name].Params(), {})
    assert make_it().judge([]) == []
