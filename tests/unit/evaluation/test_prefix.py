from dataclasses import replace

import pytest
import torch

import real_tasks.evaluation.answers.prefix as prefix
from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.types import Answer, BehaviourData, ModuleKind, Question, TokenScope
from tests.unit.tiny_models import (
    TINY_FAMILIES,
    WORDS,
    random_data,
    tiny_config,
    tiny_family,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)

PREAMBLE = " ".join(WORDS[i % len(WORDS)] for i in range(0, 7 * 45, 7)) + " . "
DATA = replace(random_data(), preamble=PREAMBLE)
QUESTIONS = (4, 0, 2, 5)
# The tokenizer's beginning of the sequence, the preamble, and "Q:".
N_PREFIX = 1 + len(PREAMBLE.split()) + 1


def model_of(family: str) -> LoadedModel:
    """A tiny model whose attention window, where it has one, does not cut."""
    window = getattr(tiny_config(family).get_text_config(), "sliding_window", None)
    wide = {"sliding_window": 128} if window else {}
    return prepare(tiny_family(family, **wide), tiny_tokenizer())


def steering(loaded: LoadedModel, scope: TokenScope, kind: ModuleKind) -> Intervention:
    generator = torch.Generator().manual_seed(1)
    width = loaded.shape.modules_per_layer(kind) * loaded.shape.width(kind)
    return Intervention.adding(
        {i: torch.randn(width, generator=generator) for i in (0, 2)}, scope, kind
    )


@torch.no_grad()
def one_at_a_time(
    loaded: LoadedModel, questions: list[Question], iv: Intervention | None
) -> list[list[float]]:
    """A plain loop: the whole text of every answer through the whole model, without a cache."""
    scores: list[list[float]] = []
    for question in questions:
        scores.append([])
        n_context = len(loaded.tokenizer(DATA.prompt_context(question))["input_ids"])
        for answer in question.answers:
            text = DATA.prompt_with_answer(question, answer)
            ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
            with applied(loaded, iv, torch.tensor([n_context])):
                log_probs = loaded.model(ids, use_cache=False).logits[0].log_softmax(-1)
            places = range(n_context, ids.shape[1])
            scores[-1].append(sum(float(log_probs[p - 1, ids[0, p]]) for p in places))
    return scores


def assert_equal(found: list[list[float]], expected: list[list[float]], within: float) -> None:
    assert [len(row) for row in found] == [len(row) for row in expected]
    flat = [torch.tensor(sum(rows, []), dtype=torch.float64) for rows in (found, expected)]
    assert float((flat[0] - flat[1]).abs().max()) < within


SCOPES: tuple[TokenScope, ...] = ("all", "generated", "last")


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_scores_after_a_prefix_read_once_equal_the_plain_computation(family) -> None:
    loaded = model_of(family)
    encoded = encode_choices(loaded, DATA, QUESTIONS, 150)
    assert len(encoded.prefix) == N_PREFIX
    assert len(encoded.batches) > 1
    asked = [DATA.questions[i] for i in QUESTIONS]
    unsteered = score_choices(loaded, encoded, None)
    assert_equal(unsteered, one_at_a_time(loaded, asked, None), 1e-4)
    for scope in SCOPES:
        iv = steering(loaded, scope, "head")
        steered = score_choices(loaded, encoded, iv)
        assert_equal(steered, one_at_a_time(loaded, asked, iv), 1e-4)
        assert steered != unsteered
    # The prefix and what is kept of it are as they were.
    assert score_choices(loaded, encoded, None) == unsteered


@pytest.mark.parametrize("kind", ["layer", "mlp"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_every_kind_of_module_is_steered_the_same_with_and_without_the_prefix(
    family, scope, kind
) -> None:
    loaded = model_of(family)
    iv = steering(loaded, scope, kind)
    expected = one_at_a_time(loaded, [DATA.questions[i] for i in QUESTIONS], iv)
    for share in (True, False):
        encoded = encode_choices(loaded, DATA, QUESTIONS, 150, share_prefix=share)
        assert len(encoded.prefix) == (N_PREFIX if share else 0)
        assert_equal(score_choices(loaded, encoded, iv), expected, 1e-4)


def test_only_the_rest_of_every_context_is_read_again() -> None:
    loaded = tiny_loaded()
    shared = encode_choices(loaded, DATA, range(6), 10_000)
    plain = encode_choices(loaded, DATA, range(6), 10_000, share_prefix=False)
    widths = [sum(b.rows.input_ids.shape[1] for b in one.batches) for one in (shared, plain)]
    assert widths[1] - widths[0] == N_PREFIX


def test_the_model_reads_the_prefix_once_for_all_batches() -> None:
    loaded = tiny_loaded()
    encoded = encode_choices(loaded, DATA, range(6), 60)
    assert len(encoded.batches) > 2
    read: list[tuple[int, ...]] = []
    handle = loaded.decoder.register_forward_pre_hook(
        lambda _module, _args, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    score_choices(loaded, encoded, None)
    handle.remove()
    batches = [tuple(batch.rows.input_ids.shape) for batch in encoded.batches]
    assert read == [(1, N_PREFIX), *batches]


def test_a_question_that_is_put_in_several_ways_shares_the_prefix() -> None:
    loaded = tiny_loaded()
    first, second, *rest = DATA.questions
    data = replace(DATA, questions=(replace(first, alternates=(second,)), second, *rest))
    encoded = encode_choices(loaded, data, (0, 3), 10_000)
    assert (len(encoded.prefix), encoded.presentations) == (N_PREFIX, (2, 1))
    expected = one_at_a_time(loaded, [first, second, DATA.questions[3]], None)
    assert_equal(score_choices(loaded, encoded, None), expected, 1e-4)


def test_eager_attention_gives_the_same() -> None:
    loaded = tiny_loaded()
    loaded.model.set_attn_implementation("eager")
    encoded = encode_choices(loaded, DATA, QUESTIONS, 150)
    expected = one_at_a_time(loaded, [DATA.questions[i] for i in QUESTIONS], None)
    assert encoded.prefix
    assert_equal(score_choices(loaded, encoded, None), expected, 1e-4)


@pytest.mark.parametrize("window", [20, 120])
def test_a_window_that_would_cut_has_no_prefix(window: int) -> None:
    loaded = prepare(tiny_qwen2(sliding_window=window), tiny_tokenizer())
    encoded = encode_choices(loaded, DATA, QUESTIONS, 150)
    assert len(encoded.prefix) == (N_PREFIX if window == 120 else 0)
    expected = one_at_a_time(loaded, [DATA.questions[i] for i in QUESTIONS], None)
    assert_equal(score_choices(loaded, encoded, None), expected, 1e-4)


def test_little_in_common_and_a_single_question_have_no_prefix() -> None:
    loaded = tiny_loaded()
    assert encode_choices(loaded, random_data(), QUESTIONS, 150).prefix == ()
    assert encode_choices(loaded, DATA, (1,), 150).prefix == ()
    assert encode_choices(loaded, DATA, (), 150).prefix == ()


def test_equal_questions_keep_the_token_that_predicts_their_answers() -> None:
    loaded = tiny_loaded()
    answers = (Answer("a", "w1 .", 1, True), Answer("b", "w2 w3 .", 0))
    questions = tuple(Question(str(i), "w9 ?", "c", answers) for i in range(2))
    data = BehaviourData("twice", questions, preamble=PREAMBLE)
    encoded = encode_choices(loaded, data, (0, 1), 1000)
    n_context = len(loaded.tokenizer(data.prompt_context(questions[0]))["input_ids"])
    assert len(encoded.prefix) == n_context - 1
    expected = one_at_a_time(loaded, list(questions), None)
    assert_equal(score_choices(loaded, encoded, None), expected, 1e-4)


def test_batches_that_run_out_of_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded()
    encoded = encode_choices(loaded, DATA, range(6), 100_000)
    (batch,) = encoded.batches
    expected = score_choices(loaded, encoded, None)
    n_rows = len(batch.rows.input_ids)
    assert n_rows > 3

    def too_large(_module: object, _args: object, given: dict[str, torch.Tensor]) -> None:
        if len(given["input_ids"]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    handle = loaded.decoder.register_forward_pre_hook(too_large, with_kwargs=True)
    halved = score_choices(loaded, encoded, None)
    handle.remove()
    assert_equal(halved, expected, 1e-5)


def test_the_threshold_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded()
    monkeypatch.setattr(prefix, "MIN_PREFIX", N_PREFIX + 1)
    assert encode_choices(loaded, DATA, QUESTIONS, 150).prefix == ()
    monkeypatch.setattr(prefix, "MIN_PREFIX", N_PREFIX)
    assert len(encode_choices(loaded, DATA, QUESTIONS, 150).prefix) == N_PREFIX


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen2"])
def test_answers_generated_after_a_prefix_read_once_are_those_of_the_whole_prompt(
    family, scope
) -> None:
    loaded = model_of(family)
    data = replace(DATA, stop=())
    for iv in (None, steering(loaded, scope, "head"), steering(loaded, scope, "layer")):
        once = generate_answers(loaded, data, QUESTIONS, iv, 8, 200)
        always = generate_answers(loaded, data, QUESTIONS, iv, 8, 200, share_prefix=False)
        assert once == always
        for place, index in enumerate(QUESTIONS):
            prompt = data.prompt_context(data.questions[index])
            ids = loaded.tokenizer(prompt, return_tensors="pt")["input_ids"]
            with applied(loaded, iv):
                said = loaded.model.generate(ids, max_new_tokens=8, do_sample=False)
            expected = loaded.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)
            assert once[place] == expected.strip()


def test_generation_reads_only_the_rest_of_every_prompt() -> None:
    loaded = tiny_loaded()
    read: list[tuple[int, ...]] = []
    handle = loaded.decoder.register_forward_pre_hook(
        lambda _module, _args, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    generate_answers(loaded, DATA, QUESTIONS, None, 2, 10_000)
    handle.remove()
    lengths = [
        len(loaded.tokenizer(DATA.prompt_context(DATA.questions[i]))["input_ids"])
        for i in QUESTIONS
    ]
    assert read[:2] == [(1, N_PREFIX), (len(QUESTIONS), max(lengths) - N_PREFIX)]
    assert all(shape == (len(QUESTIONS), 1) for shape in read[2:])
