import json
from dataclasses import replace

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.models.chat import ChatFormat, check_chat
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.thinking import without_thinking
from real_tasks.reading.batches import encode
from real_tasks.reading.prompts import answered_text, prompt_text, reading_text
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, BehaviourData, Question
from tests.unit.tiny_models import random_data, tiny_llama, tiny_loaded, tiny_tokenizer

# Templates of four kinds: own words, in the manner of published ones.
MARKED = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end>\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
)
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[{{ m['content'] | trim }}]{% endif %}"
    "{% if m['role'] == 'assistant' %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)
THINKS = (
    "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n<think></think>\n{% endif %}"
)

QUESTION = Question("q", "w1 w2 ?", "any", (Answer("a", "w3 w4", 1),), context="w5 w6 .")
DATA = BehaviourData(
    "any",
    (QUESTION,),
    template="Q: {question} A: {answer}",
    prompt="{context} Q: {question}\nA: {answer}",
    preamble="w9 w8 .\n",
    chat_prompt="{context} {question}",
)


def chatting(template: str | None, system: str = "") -> LoadedModel:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return replace(prepare(tiny_llama(), tokenizer), chat=ChatFormat(system))


def texts(loaded: LoadedModel) -> tuple[str, str, str]:
    (answer,) = QUESTION.answers
    return (
        reading_text(loaded, DATA, QUESTION, answer),
        prompt_text(loaded, DATA, QUESTION),
        answered_text(loaded, DATA, QUESTION, answer),
    )


def test_without_a_chat_template_the_behaviour_s_own_templates_are_used() -> None:
    assert texts(tiny_loaded()) == (
        "Q: w1 w2 ? A: w3 w4",
        "w9 w8 .\nw5 w6 . Q: w1 w2 ?\nA:",
        "w9 w8 .\nw5 w6 . Q: w1 w2 ?\nA: w3 w4",
    )


def test_with_one_the_question_is_what_the_user_says_and_the_answer_the_assistant_s() -> None:
    assert texts(chatting(MARKED)) == (
        "<bos><user> w5 w6 . w1 w2 ? <end>\n<assistant> w3 w4",
        "<bos><user> w9 w8 .\nw5 w6 . w1 w2 ? <end>\n<assistant>",
        "<bos><user> w9 w8 .\nw5 w6 . w1 w2 ? <end>\n<assistant> w3 w4",
    )


def test_a_question_without_the_context_of_others_has_no_blank_for_it() -> None:
    bare = replace(QUESTION, context="")
    assert prompt_text(tiny_loaded(), DATA, bare) == "w9 w8 .\nQ: w1 w2 ?\nA:"
    assert prompt_text(chatting(MARKED), DATA, bare).startswith("<bos><user> w9 w8 .\nw1 w2 ?")


def test_the_system_prompt_goes_first() -> None:
    _, prompt, answered = texts(chatting(MARKED, "w7 ."))
    assert prompt.startswith("<bos><system> w7 . <end>\n<user> w9")
    assert answered == f"{prompt} w3 w4"


def test_the_blank_before_the_answer_is_the_template_s() -> None:
    _, prompt, answered = texts(chatting(DROPS_SYSTEM))
    assert (prompt, answered[len(prompt) :]) == ("[w9 w8 .\nw5 w6 . w1 w2 ?]", " w3 w4")
    _, prompt, answered = texts(chatting(NO_SYSTEM))
    assert answered[len(prompt) :] == "w3 w4"


def test_a_template_that_begins_answers_otherwise_than_past_ones_gets_no_blank() -> None:
    _, prompt, answered = texts(chatting(THINKS))
    assert prompt.endswith("assistant:\n<think></think>\n")
    assert answered == f"{prompt}w3 w4"


def test_the_beginning_of_sequence_token_is_there_once() -> None:
    loaded = chatting(MARKED)
    ids = encode(loaded, list(texts(loaded)))
    assert all(row[0] == 1 and row.count(1) == 1 for row in ids)


def test_a_tokenizer_that_adds_none_keeps_the_template_s() -> None:
    loaded = chatting(MARKED)
    bare = TemplateProcessing(single="$A", special_tokens=[])
    loaded.tokenizer.backend_tokenizer.post_processor = bare
    ids = encode(loaded, list(texts(loaded)))
    assert all(row[0] == 1 and row.count(1) == 1 for row in ids)


def test_a_template_without_a_system_role_is_a_clear_error() -> None:
    with pytest.raises(
        UserInputError, match=r"System role not supported.*model\.system_prompt to ''"
    ):
        texts(chatting(NO_SYSTEM, "w7 ."))


def test_a_template_that_drops_the_system_prompt_is_an_error() -> None:
    with pytest.raises(UserInputError, match=r"leaves out what the system says \('w7 \.'\)"):
        texts(chatting(DROPS_SYSTEM, "w7 ."))


@pytest.mark.parametrize("template", ["{% for", "{{ messages[0]['content'] + none }}", None])
def test_a_broken_or_missing_template_is_a_clear_error(template: str | None) -> None:
    with pytest.raises(UserInputError, match="chat template cannot be used"):
        texts(chatting(template))


def test_braces_and_words_of_the_template_in_a_question_stay_as_they_are() -> None:
    question = replace(QUESTION, text="{answer} {{ x }} ANSWER ?")
    prompt = prompt_text(chatting(MARKED), DATA, question)
    answered = answered_text(chatting(MARKED), DATA, question, QUESTION.answers[0])
    assert "{answer} {{ x }} ANSWER ? <end>" in prompt
    assert answered == f"{prompt} w3 w4"


@torch.no_grad()
def test_answers_in_a_chat_template_are_scored_after_the_prompt_alone() -> None:
    data = replace(random_data(3), preamble="w9 w8 .\n")
    loaded = chatting(MARKED, "w7 .")
    found = score_choices(loaded, encode_choices(loaded, data, range(3), 300), None)
    for question, row in zip(data.questions, found, strict=True):
        (context,) = encode(loaded, [prompt_text(loaded, data, question)])
        for answer, score in zip(question.answers, row, strict=True):
            (own,) = encode(loaded, [answer.text])
            ids = torch.tensor([[*context, *own[1:]]])
            log_probs = loaded.model(ids).logits[0].log_softmax(-1)
            places = range(len(context), ids.shape[1])
            expected = sum(float(log_probs[p - 1, ids[0, p]]) for p in places)
            assert score == pytest.approx(expected, rel=1e-4)


OPENS = {
    "<think>\n": "\n</think>\n\n",
    "<think>": "</think>",
    "[THINK]": "[/THINK]",
    "<thinking>\n\n": "\n</thinking>\n\n",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|think_start|>": "<|think_end|>",
    "<|begin_of_thought|>\n": "\n<|end_of_thought|>\n\n",
    "<longcat_think>\n": "\n</longcat_think>\n\n",
    "<antThinking>": "</antThinking>",
    '<think type="deep">': "</think>",
    "◁think▷": "◁/think▷",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|channel>thought\n": "\n<channel|>\n\n",
    "Here are my reasoning steps:\n": "\n[BEGIN FINAL RESPONSE]\n\n",
    "<seed:think>": "</seed:think>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
}
OPENING = (
    "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\nOPENED"
    "{% if enable_thinking is defined and not enable_thinking %}{{ CLOSED }}{% endif %}{% endif %}"
)


@pytest.mark.parametrize("opened", OPENS)
def test_a_template_that_opens_thinking_is_refused_or_told_not_to_or_closed(opened: str) -> None:
    asked = replace(QUESTION, text="What does <think> mean ?")
    template = OPENING.replace("OPENED", opened).replace("CLOSED", json.dumps(OPENS[opened]))
    loaded = chatting(template)
    with pytest.raises(UserInputError, match=r"thinking block .*enable_thinking.*thinking: closed"):
        prompt_text(loaded, DATA, asked)
    told = replace(loaded, chat=ChatFormat(arguments={"enable_thinking": False}))
    closed = replace(loaded, chat=ChatFormat(thinking="closed"))
    expected = f"What does <think> mean ?\nassistant:\n{opened}{OPENS[opened]}"
    for one in (told, closed):
        prompt = prompt_text(one, DATA, asked)
        assert prompt.endswith(expected)
        assert answered_text(one, DATA, asked, asked.answers[0]) == f"{prompt}w3 w4"


def test_what_a_question_says_of_thinking_opens_nothing() -> None:
    asked = replace(QUESTION, text="What does <think> mean ?")
    assert prompt_text(chatting(MARKED), DATA, asked).endswith("<end>\n<assistant>")


@pytest.mark.parametrize(
    "written",
    ["<think></think>", "</think>", "<no_think>", "<|nothink|>", "<answer>", "<reasoning_effort>"]
    + ["<seed:think>\n<seed:cot_budget_reflect>0</seed:cot_budget_reflect>\n</seed:think>"]
    + ["<|channel|>final<|message|>"],
)
def test_what_opens_no_thinking_is_left_as_it_is(written: str) -> None:
    loaded = chatting(OPENING.replace("OPENED", written).replace("CLOSED", "''"))
    for chat in (ChatFormat(), ChatFormat(thinking="closed")):
        prompt = prompt_text(replace(loaded, chat=chat), DATA, QUESTION)
        assert prompt.endswith(f"assistant:\n{written}")


@pytest.mark.parametrize("asked", ["w1 ? /no_think", "<think> ? /no_think"])
def test_a_question_that_tells_the_template_not_to_think_is_heard(asked: str) -> None:
    told = "{% if messages[-1]['content'].endswith('/no_think') %}</think>{% endif %}"
    loaded = chatting(OPENING.replace("OPENED", f"<think>{told}").replace("CLOSED", "''"))
    prompt = prompt_text(loaded, DATA, replace(QUESTION, text=asked))
    assert prompt.endswith("<think></think>")
    with pytest.raises(UserInputError, match="thinking block"):
        prompt_text(loaded, DATA, QUESTION)


@pytest.mark.parametrize("name", ["enable_thinkng", "tokenize", "messages", "content"])
def test_an_argument_that_the_template_does_not_ask_for_is_refused(name: str) -> None:
    loaded = chatting(OPENING.replace("OPENED", "<think>").replace("CLOSED", "'</think>'"))
    with pytest.raises(
        UserInputError, match=rf"'{name}', which .* \(it asks for enable_thinking\)"
    ):
        check_chat(loaded.tokenizer, ChatFormat(arguments={name: True}))


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("<think>\nSo . </think>\n\nNo .", "\n\nNo ."),
        ("<think>\nSo it is", None),
        ("No . <think> is a tag", "No . <think> is a tag"),
        ("[THINK]So[/THINK]No .", "No ."),
        ("<THINK>So</think>No .", "No ."),
        ("<|think_start|>So<|think_end|>No .", "No ."),
        ("<longcat_think>So</longcat_think>No .", "No ."),
        ("<|channel|>final<|message|>No .", "No ."),
        ("</think>No .", "</think>No ."),
        (
            "<|channel|>analysis<|message|>So<|end|><|start|>assistant<|channel|>final<|message|>N",
            "N",
        ),
    ],
)
def test_thinking_is_no_part_of_an_answer(said: str, answer: str | None) -> None:
    assert without_thinking(said) == answer
