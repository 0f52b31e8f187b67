from dataclasses import replace

import pytest
import torch

from real_tasks.evaluation import speed
from real_tasks.evaluation.answers import greedy
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.models.chat import ChatFormat
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import (
    WORDS,
    random_data,
    random_intervention,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)

DATA = replace(random_data(), stop=())
QUESTIONS = (3, 0, 5, 1)


def transformers_answers(loaded: LoadedModel, iv: Intervention | None, n_new: int) -> list[str]:
    """Question by question with the library's own greedy generate."""
    answers = []
    for index in QUESTIONS:
        ids = loaded.tokenizer(DATA.context(DATA.questions[index]), return_tensors="pt")
        with applied(loaded, iv):
            out = loaded.model.generate(**ids, max_new_tokens=n_new, do_sample=False)
        new = out[0, ids["input_ids"].shape[1] :]
        answers.append(loaded.tokenizer.decode(new, skip_special_tokens=True))
    return answers


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("model", [tiny_llama, tiny_qwen2])
def test_batched_generation_equals_the_library_s_one_at_a_time(model, batch_tokens: int) -> None:
    loaded = prepare(model(), tiny_tokenizer())
    found = generate_answers(loaded, DATA, QUESTIONS, None, 12, batch_tokens)
    assert found == transformers_answers(loaded, None, 12)
    assert all(found)


@pytest.mark.parametrize("scope", ["all", "generated", "last"])
def test_steered_generation_equals_the_library_s_steered_the_same_way(scope) -> None:
    loaded = tiny_loaded()
    iv = random_intervention(loaded, scope)
    found = generate_answers(loaded, DATA, QUESTIONS, iv, 12, 10_000)
    assert found == transformers_answers(loaded, iv, 12)
    assert found != transformers_answers(loaded, None, 12)


def test_a_model_with_a_sliding_window_generates_the_same() -> None:
    loaded = prepare(tiny_qwen2(sliding_window=5), tiny_tokenizer())
    found = generate_answers(loaded, DATA, QUESTIONS, None, 12, 10_000)
    assert found == transformers_answers(loaded, None, 12)


def test_the_checkpoint_s_generation_settings_do_not_change_greedy_answers() -> None:
    loaded = tiny_loaded()
    before = generate_answers(loaded, DATA, QUESTIONS, None, 8, 10_000)
    loaded.model.generation_config.repetition_penalty = 5.0
    loaded.model.generation_config.do_sample = True
    assert generate_answers(loaded, DATA, QUESTIONS, None, 8, 10_000) == before


def test_answers_are_cut_at_the_first_stop_string_and_generation_ends_there() -> None:
    loaded = tiny_loaded()
    full = generate_answers(loaded, DATA, QUESTIONS, None, 20, 10_000)
    stop = tuple(dict.fromkeys(answer.split()[4] for answer in full))
    steps = []
    loaded.lm_head.register_forward_hook(lambda *_: steps.append(1))
    found = generate_answers(loaded, replace(DATA, stop=stop), QUESTIONS, None, 20, 10_000)
    for answer, cut in zip(full, found, strict=True):
        assert cut == answer[: min(answer.find(s) for s in stop if s in answer)].strip()
    assert len(steps) <= 5


def test_a_stop_string_in_the_thinking_of_a_chat_ends_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = tiny_tokenizer(words=("<think>", "</think>", *WORDS[2:]))
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    loaded = replace(prepare(tiny_llama(), tokenizer), chat=ChatFormat())
    for said, expected in (("<think> . w3 . </think> w4 . w5", "w4"), ("<think> . w3", "")):
        ids = tokenizer.convert_tokens_to_ids(said.split())
        monkeypatch.setattr(greedy, "steps", lambda *_, ids=ids: ([one] for one in ids))
        data = replace(DATA, stop=(".",))
        assert generate_answers(loaded, data, (0,), None, 20, 10_000) == [expected]


def test_a_stop_string_that_spans_tokens_is_seen() -> None:
    loaded = tiny_loaded()
    full = generate_answers(loaded, DATA, (3,), None, 20, 10_000)[0]
    words = full.split()
    stop = " ".join(words[2:5])
    steps = []
    loaded.lm_head.register_forward_hook(lambda *_: steps.append(1))
    found = generate_answers(loaded, replace(DATA, stop=(stop,)), (3,), None, 20, 10_000)
    assert found == [full[: full.find(stop)].strip()]
    assert len(steps) <= 5


def test_a_row_ends_at_the_end_of_sequence_token_while_others_go_on() -> None:
    loaded = tiny_loaded()
    full = generate_answers(loaded, DATA, QUESTIONS, None, 12, 10_000)
    ender = full[0].split()[3]
    loaded.model.generation_config.eos_token_id = [
        2,
        loaded.tokenizer.convert_tokens_to_ids(ender),
    ]
    for answer, ended in zip(
        full, generate_answers(loaded, DATA, QUESTIONS, None, 12, 10_000), strict=True
    ):
        words = answer.split()
        expected = words[: words.index(ender)] if ender in words else words
        assert ended.split() == expected


def test_prompts_that_leave_no_room_are_refused() -> None:
    with pytest.raises(UserInputError, match="4 of 4 texts with 125 new tokens"):
        generate_answers(tiny_loaded(), DATA, QUESTIONS, None, 125, 10_000)


def test_no_questions_have_no_answers() -> None:
    assert generate_answers(tiny_loaded(), DATA, (), None, 5, 100) == []


def test_half_precision_generates_text() -> None:
    half = prepare(tiny_llama().to(torch.bfloat16), tiny_tokenizer())
    assert all(generate_answers(half, DATA, QUESTIONS, None, 5, 100))


def test_a_token_is_timed_steered_and_bare_in_turn_after_its_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, now, widths = tiny_loaded(), [0.0], []
    steering = random_intervention(loaded, "all")
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])

    def forward(_: object, __: object, given: dict[str, torch.Tensor], ___: object) -> None:
        widths.append(given["input_ids"].shape[1])
        o_proj = loaded.model.model.layers[0].self_attn.o_proj
        now[0] += 2.0 if o_proj._forward_pre_hooks else 1.0

    loaded.model.model.register_forward_hook(forward, with_kwargs=True)
    assert speed.token_seconds(loaded, [5] * 99, steering) == (2.0, 1.0)
    assert widths[0] == speed.PROMPT_TOKENS and set(widths[1 : speed.TOKENS + 1]) == {1}
