"""A prompt is put as the evaluation puts a question, and put so again from what is kept of it."""

import json
from dataclasses import replace

import pytest

from real_tasks.models.chat import ChatFormat
from real_tasks.reading.asking import Asking
from tests.unit.tiny_models import random_data, tiny_loaded

DATA = replace(random_data(3), preamble="Say {why} }{ so. ", stop=("w7", "\n"))


@pytest.mark.parametrize("data", [DATA, replace(DATA, prompt="Well, {{{question}}}: {answer}")])
def test_a_question_is_put_as_the_evaluation_puts_it(data) -> None:
    asking = Asking.of(data, None)
    found = [asking.text(tiny_loaded(), question.text) for question in data.questions]
    assert found == [data.prompt_context(question) for question in data.questions]


def test_where_questions_have_a_context_a_prompt_stands_as_it_is() -> None:
    asking = Asking.of(replace(DATA, template="{context} Q: {question} A: {answer}"), None)
    assert asking.text(tiny_loaded(), "w1 {w2}") == "w1 {w2}"


@pytest.mark.parametrize("chat", [None, ChatFormat("Be kind.", thinking="closed")])
def test_what_is_kept_of_it_says_it_all(chat: ChatFormat | None) -> None:
    asking = Asking.of(DATA, chat)
    assert Asking.from_facts(json.loads(json.dumps(asking.as_facts()))) == asking
