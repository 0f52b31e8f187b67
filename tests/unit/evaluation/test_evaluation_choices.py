import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

import real_tasks.evaluation.answers.choice_batches as choice_rows
from real_tasks.evaluation.answers.choices import choice_scores, encode_choices, score_choices
from real_tasks.evaluation.answers.mc_scores import mc_scores
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, BehaviourData, Question
from tests.unit.tiny_models import (
    random_data,
    random_intervention,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)

DATA = random_data()
QUESTIONS = (4, 0, 2, 5)


@torch.no_grad()
def one_at_a_time(
    loaded: LoadedModel, data: BehaviourData, questions: tuple[int, ...], iv: Intervention | None
) -> list[list[float]]:
    """A plain loop: each answer's own forward pass through the whole model."""
    scores = []
    for question in (data.questions[i] for i in questions):
        row = []
        n_context = len(loaded.tokenizer(data.context(question))["input_ids"])
        for answer in question.answers:
            ids = loaded.tokenizer(data.full_text(question, answer), return_tensors="pt")
            with applied(loaded, iv, torch.tensor([n_context])):
                log_probs = loaded.model(**ids).logits[0].float().log_softmax(-1)
            tokens = ids["input_ids"][0]
            places = range(n_context, len(tokens))
            row.append(sum(float(log_probs[p - 1, tokens[p]]) for p in places))
        scores.append(row)
    return scores


def assert_close(found: list[list[float]], expected: list[list[float]], tolerance=1e-4) -> None:
    assert [len(row) for row in found] == [len(row) for row in expected]
    flat = [torch.tensor(sum(rows, [])) for rows in (found, expected)]
    torch.testing.assert_close(flat[0], flat[1], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("batch_tokens", [1, 60, 100_000])
@pytest.mark.parametrize("model", [tiny_llama, tiny_qwen2])
def test_scores_equal_a_plain_loop(model, batch_tokens: int) -> None:
    loaded = prepare(model(), tiny_tokenizer())
    encoded = encode_choices(loaded, DATA, QUESTIONS, batch_tokens)
    expected = one_at_a_time(loaded, DATA, QUESTIONS, None)
    assert_close(score_choices(loaded, encoded, None), expected)


@pytest.mark.parametrize("scope", ["all", "generated", "last"])
def test_steered_scores_equal_a_plain_loop_steered_the_same_way(scope) -> None:
    loaded = tiny_loaded()
    encoded = encode_choices(loaded, DATA, QUESTIONS, 100)
    iv = random_intervention(loaded, scope)
    expected = one_at_a_time(loaded, DATA, QUESTIONS, iv)
    assert_close(score_choices(loaded, encoded, iv), expected, 1e-3)
    assert expected != one_at_a_time(loaded, DATA, QUESTIONS, None)


def test_rows_split_where_they_grow_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice_rows, "MAX_SHARED_ROW", 16)
    loaded = tiny_loaded()
    encoded = encode_choices(loaded, DATA, QUESTIONS, 10_000)
    n_rows = sum(len(batch.rows.input_ids) for batch in encoded.batches)
    assert len(QUESTIONS) < n_rows < sum(map(len, encoded.labels))
    assert_close(score_choices(loaded, encoded, None), one_at_a_time(loaded, DATA, QUESTIONS, None))


@pytest.mark.parametrize("window", [6, 100])
def test_a_sliding_window_that_cuts_is_respected(window: int) -> None:
    loaded = prepare(tiny_qwen2(sliding_window=window), tiny_tokenizer())
    encoded = encode_choices(loaded, DATA, QUESTIONS, 100)
    assert all(batch.rows.shares == (window == 100) for batch in encoded.batches)
    assert_close(score_choices(loaded, encoded, None), one_at_a_time(loaded, DATA, QUESTIONS, None))


def test_half_precision_is_scored_near_the_full() -> None:
    half = prepare(tiny_llama().to(torch.bfloat16), tiny_tokenizer())
    encoded = encode_choices(half, DATA, QUESTIONS, 100)
    expected = one_at_a_time(tiny_loaded(), DATA, QUESTIONS, None)
    assert_close(score_choices(half, encoded, None), expected, 0.1)


@pytest.mark.parametrize("scope", ["all", "generated", "last"])
def test_answers_that_begin_alike_are_read_together_and_score_what_each_does(scope) -> None:
    words = ("w1 w2 .", "w1 w2 w3 w4 .", "w5 .", "w1 w2 w3 .", "w1 w6 .", "w1 w2 .")
    answers = tuple(Answer(str(i), text, int(i < 3), i == 0) for i, text in enumerate(words))
    data = BehaviourData("alike", (Question("q", "w7 w8 ?", "", answers),))
    loaded = tiny_loaded()
    iv = random_intervention(loaded, scope)
    encoded = encode_choices(loaded, data, (0,), 1000)
    assert_close(score_choices(loaded, encoded, iv), one_at_a_time(loaded, data, (0,), iv))
    (batch,) = encoded.batches
    context = len(loaded.tokenizer(data.context(data.questions[0]))["input_ids"])
    # w1, w2, w3 and w4 in a line, w5, and w6 after w1; full stops are only predicted.
    assert batch.rows.input_ids.shape == (1, context + 6)
    # After the context, w1, w2, w3, w4, w5 and w6.
    assert len(batch.reads) == 7


def test_the_logits_come_in_chunks_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded()
    encoded = encode_choices(loaded, DATA, QUESTIONS, 1000)
    at_once = score_choices(loaded, encoded, None)
    monkeypatch.setattr("real_tasks.evaluation.answers.logits.CHUNK_BYTES", 4 * 68 * 3)
    assert_close(score_choices(loaded, encoded, None), at_once, 1e-5)


def test_a_private_copy_scores_what_another_copy_encoded() -> None:
    loaded = tiny_loaded()
    encoded = encode_choices(loaded, DATA, QUESTIONS, 100)
    assert score_choices(loaded.private_copy(), encoded, None) == score_choices(
        loaded, encoded, None
    )


def question(text: str, *answers: str) -> BehaviourData:
    made = tuple(Answer(str(i), a, int(i == 0), i == 0) for i, a in enumerate(answers))
    return BehaviourData("one", (Question("q", text, "c", made),), ())


def merging_model() -> LoadedModel:
    """A byte-pair tokenizer in which the colon before an answer may merge with its first letter."""
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<bos>", *"QAxyz :?", ":x", " y"])}
    tokenizer = Tokenizer(BPE(vocabulary, [(":", "x"), (" ", "y")]))
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
    return prepare(tiny_llama(), fast)


def from_common_context(loaded: LoadedModel, text: str, n_context: int) -> float:
    ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
    log_probs = loaded.model(ids).logits[0].log_softmax(-1)
    return sum(float(log_probs[p - 1, ids[0, p]]) for p in range(n_context, ids.shape[1]))


def test_no_answer_token_is_lost_where_the_tokens_of_context_and_answer_merge() -> None:
    loaded = merging_model()
    data = question("x", "xz", "zz")
    data = BehaviourData("m", data.questions, (), template="Q:z{question}A:{answer}")
    # The context's own last token, ":", is no token of "...A:xz": there it is ":x".
    context = loaded.tokenizer("Q:zxA:")["input_ids"]
    joint = loaded.tokenizer("Q:zxA:xz")["input_ids"]
    assert joint[: len(context)] != context
    found = score_choices(loaded, encode_choices(loaded, data, (0,), 100), None)[0]
    n_common = len(context) - 1
    expected = [from_common_context(loaded, f"Q:zxA:{a}", n_common) for a in ("xz", "zz")]
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_blank_before_an_answer_belongs_to_the_answer() -> None:
    loaded = merging_model()
    data = question("x?", "yz", "xz")
    n_context = len(loaded.tokenizer("Q: x? A:")["input_ids"])
    found = score_choices(loaded, encode_choices(loaded, data, (0,), 100), None)[0]
    expected = [from_common_context(loaded, f"Q: x? A: {a}", n_context) for a in ("yz", "xz")]
    assert found == pytest.approx(expected, abs=1e-4)


def test_an_empty_answer_is_refused() -> None:
    with pytest.raises(UserInputError, match="an answer without tokens of its own"):
        encode_choices(tiny_loaded(), question("w1 ?", "w2", ""), (0,), 100)


def test_prompts_beyond_the_positions_are_refused() -> None:
    long = " ".join(["w1"] * 130)
    with pytest.raises(UserInputError, match="1 of 2 texts are longer"):
        encode_choices(tiny_loaded(), question("w1 ?", "w2", long), (0,), 100)


def test_no_questions_have_no_scores() -> None:
    loaded = tiny_loaded()
    assert score_choices(loaded, encode_choices(loaded, DATA, (), 100), None) == []


def test_choice_scores_are_the_mc_scores_of_every_question() -> None:
    loaded = tiny_loaded()
    found = choice_scores(loaded, encode_choices(loaded, DATA, QUESTIONS, 100), None)
    rows = zip(QUESTIONS, one_at_a_time(loaded, DATA, QUESTIONS, None), strict=True)
    for place, (index, log_probs) in enumerate(rows):
        answers = DATA.questions[index].answers
        labels, is_best = [a.label for a in answers], [a.is_best for a in answers]
        expected = mc_scores(log_probs, labels, is_best)
        for name in ("mc0", "mc1", "mc2", "mc3"):
            assert found[name][place] == pytest.approx(getattr(expected, name), abs=1e-4)
