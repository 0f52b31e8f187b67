"""lm-evaluation-harness itself, with its own prompts, and ours on the same questions."""

from pathlib import Path
from typing import Any

import lm_eval
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from real_tasks.evaluation.answers.choices import choice_scores, encode_choices, score_choices
from real_tasks.models.loading import prepare
from real_tasks.questions.behaviours.truthfulqa import TruthfulQA
from real_tasks.vocabulary.types import BehaviourData, Question
from tests.unit.harness_tasks import (
    QUESTIONS,
    byte_tokenizer,
    skip_environment_report,
    small_llama,
    write_mc_task,
    write_tasks,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_environment_report(monkeypatch)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("local"))


def samples_of(tasks: Path, name: str, checkpoint: Path) -> list[dict[str, Any]]:
    """Run lm-evaluation-harness as its users do: a checkpoint folder, a task, its own prompts."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    outcome = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=4),
        tasks=[name],
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
        bootstrap_iters=0,
    )
    return sorted(outcome["samples"][name], key=lambda sample: sample["doc_id"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BehaviourData:
    """The behaviour as a user has it: a file like the published one, the preset with the primer."""
    path = write_mc_task(tmp_path_factory.mktemp("data") / "mc_task.json")
    return TruthfulQA(TruthfulQA.Params(path=str(path), preset="primer")).load()


def in_order(question: Question, values: list[float], texts: tuple[str, ...]) -> list[float]:
    """Values of a question's answers, in the order of the given texts."""
    by_text = dict(zip((answer.text for answer in question.answers), values, strict=True))
    return [by_text[text] for text in texts]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("cuts", ["words", "blanks"])
def test_log_likelihoods_mc1_and_mc2_are_those_of_lm_evaluation_harness(
    tmp_path: Path, tasks: Path, data: BehaviourData, cuts: str, bos: bool
) -> None:
    tokenizer = byte_tokenizer(cuts, bos)
    small_llama(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    mc1, mc2 = (samples_of(tasks, name, tmp_path) for name in ("local_mc1", "local_mc2"))

    loaded = prepare(
        AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    )
    encoded = encode_choices(loaded, data, range(len(QUESTIONS)), 2000)
    assert len(encoded.prefix) > 100
    found = score_choices(loaded, encoded, None)
    scores = choice_scores(loaded, encoded, None)
    for i, (text, true, false) in enumerate(QUESTIONS):
        question = data.questions[i]
        assert question.text == text == mc1[i]["doc"]["question"] == mc2[i]["doc"]["question"]
        of_all = [response[0][0] for response in mc2[i]["resps"]]
        assert in_order(question, found[i], (*true, *false)) == pytest.approx(of_all, abs=1e-4)
        of_mc1 = [response[0][0] for response in mc1[i]["resps"]]
        assert in_order(question, found[i], (true[0], *false)) == pytest.approx(of_mc1, abs=1e-4)
        assert scores["mc1"][i] == mc1[i]["acc"]
        assert scores["mc2"][i] == pytest.approx(mc2[i]["acc"], abs=1e-4)
    assert 0 < sum(scores["mc1"]) < len(QUESTIONS)


def test_our_prompts_are_to_the_letter_those_of_lm_evaluation_harness(
    tmp_path: Path, tasks: Path, data: BehaviourData
) -> None:
    tokenizer = byte_tokenizer("words", bos=False)
    small_llama(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    samples = samples_of(tasks, "local_mc2", tmp_path)
    for question, sample in zip(data.questions, samples, strict=True):
        ours = {data.prompt_with_answer(question, answer) for answer in question.answers}
        theirs = {context + continuation for context, continuation in sample["arguments"]}
        assert ours == theirs
        assert {context for context, _ in sample["arguments"]} == {data.prompt_context(question)}


def test_a_token_that_spans_question_new_line_and_answer_mark_ends_the_context(
    data: BehaviourData,
) -> None:
    tokenizer = byte_tokenizer("blanks", bos=True)
    contexts = [data.prompt_context(question) for question in data.questions]
    ends = [tokenizer.decode(tokenizer(context)["input_ids"][-1:]) for context in contexts]
    assert any("?\nA:" in end for end in ends)
