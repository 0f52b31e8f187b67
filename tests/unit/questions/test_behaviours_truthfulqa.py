"""The behaviour truthfulqa: published files, the Hub's form, and the harness's prompt."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.utils import apply_template
from pydantic import ValidationError

from real_tasks.questions.behaviours import BEHAVIOURS, truthfulqa
from real_tasks.questions.behaviours.truthfulqa import TruthfulQA
from real_tasks.questions.behaviours.truthfulqa import primer as truthfulqa_primer
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData, Question

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "truthfulqa"
needs_published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the published files of TruthfulQA are not here"
)
HEADER = ["Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers"]


def load(path: Path | None = None, **params: Any) -> BehaviourData:
    given = {"path": str(path)} if path else {}
    return TruthfulQA(TruthfulQA.Params.model_validate(given | params)).load()


def csv_file(folder: Path, *rows: list[str], header: list[str] = HEADER) -> Path:
    path = folder / "TruthfulQA.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def json_file(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "mc_task.json"
    path.write_text(json.dumps(records))
    return path


def record(**changes: Any) -> dict[str, Any]:
    return {
        "question": "Is it wet?",
        "mc0_targets": {"Yes, when it rains": 1, "Never": 0},
        "mc1_targets": {"Yes, when it rains": 1, "Never": 0, "Always": 0},
        "mc2_targets": {"It depends": 1, "Yes, when it rains": 1, "Never": 0, "Always": 0},
        **changes,
    }


def texts(question: Question, label: int) -> list[str]:
    return [answer.text for answer in question.answers if answer.label == label]


def best(question: Question, label: int) -> list[str]:
    return [a.text for a in question.answers if a.label == label and a.is_best]


def test_a_row_of_the_csv_gives_all_its_answers(tmp_path: Path) -> None:
    row = ["Law", " What is it? ", "B", "A; B ;C;", "D; E"]
    data = load(csv_file(tmp_path, row))
    (question,) = data.questions
    assert (question.text, question.category) == ("What is it?", "Law")
    assert (texts(question, 1), texts(question, 0)) == (["A", "B", "C"], ["D", "E"])
    assert (best(question, 1), best(question, 0)) == (["B"], [])
    assert data.source["file"] == "TruthfulQA.csv" and data.source["questions"] == "1"
    assert len(data.source["sha256"]) == 64 and data.measures == ("multiple_choice",)


def test_newer_files_name_the_best_incorrect_answer(tmp_path: Path) -> None:
    header = [*HEADER, "Best Incorrect Answer"]
    rows = [["Law", "One?", "A", "A", "D; E", "E"], ["Law", "Two?", "A", "A", "D; E", "F"]]
    data = load(csv_file(tmp_path, *rows, header=header))
    assert [best(question, 0) for question in data.questions] == [["E"], []]
    assert data.source["best_incorrect_answers_not_among_the_false"] == "1"


def test_repeated_empty_and_contradictory_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    data = load(csv_file(tmp_path, ["Law", "One?", "A", "A; B; B; Unknown", "C; Unknown; C"]))
    assert [texts(data.questions[0], label) for label in (1, 0)] == [["A", "B"], ["C"]]
    assert data.source["answers_repeated"] == "2"
    assert data.source["answers_both_true_and_false"] == "1"
    targets = {"Yes, when it rains": 1, "Never": 0, "": 0}
    data = load(json_file(tmp_path, record(mc1_targets=targets, mc2_targets=targets)))
    assert texts(data.questions[0], 0) == ["Never"] and data.source["answers_empty"] == "1"


def test_targets_give_mc2s_answers_mc1s_best_and_mc0s_best_incorrect(tmp_path: Path) -> None:
    (question,) = load(json_file(tmp_path, record())).questions
    assert texts(question, 1) == ["It depends", "Yes, when it rains"]
    assert texts(question, 0) == ["Never", "Always"]
    assert (best(question, 1), best(question, 0)) == (["Yes, when it rains"], ["Never"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mc1_targets": {"a": 0, "b": 0}}, "marks 0 answers as true"),
        ({"mc2_targets": {"a": 2}}, "a label other than 0 and 1"),
        ({"mc2_targets": ["a"]}, "'mc2_targets' is a list"),
        ({"mc2_targets": {"Yes, when it rains": 1}}, "no true or no false answer"),
        ({"mc2_targets": {"It depends": 1, "Never": 0}}, "not among the aligned ones"),
        ({"question": ""}, "'question' is empty"),
    ],
)
def test_a_wrong_item_is_refused_and_can_be_skipped(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = json_file(tmp_path, record(), record(question="Other?") | changes)
    with pytest.raises(UserInputError, match="1 bad line, 1 good ones") as error:
        load(path)
    assert "item 2: " in str(error.value) and told in str(error.value)
    assert len(load(path, skip_bad=True).questions) == 1


def hub(name: str, config: str, split: str, revision: str | None) -> list[dict[str, Any]]:
    assert (name, split, revision) == ("truthfulqa/truthful_qa", "validation", "v2")
    if config == "generation":
        return [{"question": "Is it  wet?", "category": "Weather"}]
    chosen = record()
    del chosen["mc0_targets"]
    for name in ("mc1_targets", "mc2_targets"):
        chosen[name] = {"choices": list(chosen[name]), "labels": list(chosen[name].values())}
    return [chosen, chosen | {"question": "Unlisted?"}]


def test_the_hubs_choices_are_joined_with_its_categories(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(truthfulqa, "hub_records", hub)
    data = load(revision="v2")
    (local,) = load(json_file(tmp_path, record())).questions
    for label in (1, 0):
        assert texts(data.questions[0], label) == texts(local, label)
    assert [question.category for question in data.questions] == ["Weather", "unknown"]
    assert data.source["file"] == "truthfulqa/truthful_qa@v2 (multiple_choice, validation)"


def harness_context(question: str) -> str:
    """What lm-evaluation-harness itself makes of its task, read without our loader."""
    path = Path(lm_eval.__file__).parent / "tasks" / "truthfulqa" / "truthfulqa_mc1.yaml"
    task = yaml.safe_load(path.read_text())
    return str(apply_template(task["doc_to_text"], {"question": question}))


def test_the_primed_prompt_is_the_harnesss_context(tmp_path: Path) -> None:
    path = json_file(tmp_path, record(), record(question='What\'s {that}, "really"?'))
    data = load(path, preset="primer")
    for question in data.questions:
        expected = harness_context(question.text)
        assert data.prompt_context(question) == expected
        answer = question.answers[0]
        assert data.prompt_with_answer(question, answer) == f"{expected} {answer.text}"
        said = data.preamble + data.chat_prompt.format(question=question.text, context="")
        assert said == expected
    assert data.source["primer"].startswith("lm_eval 0.")
    # Activations are read without it.
    assert data.context(data.questions[0]) == "Q: Is it wet? A:"


def test_an_instruction_stands_before_the_primer_and_plain_has_neither(tmp_path: Path) -> None:
    path = json_file(tmp_path, record())
    plain, primer, instructed = (
        load(path, preset=preset, instruction="Take it literally." * (preset == "instructed"))
        for preset in ("plain", "primer", "instructed")
    )
    assert plain.preamble == ""
    assert instructed.preamble == f"Take it literally.\n\n{primer.preamble}"
    question = plain.questions[0]
    assert plain.prompt_context(question) == "Q: Is it wet?\nA:"
    assert [data.source["preset"] for data in (plain, primer, instructed)] == [
        "plain",
        "primer",
        "instructed",
    ]


@pytest.mark.parametrize(
    "params",
    [
        {"preset": "instructed"},
        {"preset": "primer", "instruction": "Be exact."},
        {"path": "a.csv", "revision": "v2"},
    ],
)
def test_parameters_that_contradict_each_other_are_refused(params: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TruthfulQA.Params.model_validate(params)


def test_without_the_harness_the_primer_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = json_file(tmp_path, record())
    monkeypatch.setattr(truthfulqa_primer.importlib.util, "find_spec", lambda _name: None)
    assert load(path).preamble == ""
    with pytest.raises(UserInputError, match=r"pip install real-steering\[lm-eval\]"):
        load(path, preset="primer")


@pytest.mark.parametrize(
    "text", ["doc_to_text: '{{question}}'", "doc_to_text: '{% if %}'", "other: 1", "- [", "1"]
)
def test_another_task_than_expected_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "task.yaml").write_text(text)
    monkeypatch.setattr(
        truthfulqa_primer, "_task_file", lambda: (tmp_path / "task.yaml", "lm_eval 9 task.yaml")
    )
    with pytest.raises(UserInputError, match="lm_eval 9 task.yaml is not the task"):
        truthfulqa_primer.six_shot_primer()


def test_it_is_registered() -> None:
    assert BEHAVIOURS["truthfulqa"] is TruthfulQA


@needs_published
def test_the_published_csv_has_817_questions_in_38_categories() -> None:
    data = load(PUBLISHED / "TruthfulQA.csv")
    assert len(data.questions) == 817 == int(data.source["questions"])
    assert len({question.category for question in data.questions}) == 38
    with (PUBLISHED / "TruthfulQA.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [q.text for q in data.questions] == [row["Question"].strip() for row in rows]
    for question, row in zip(data.questions, rows, strict=True):
        assert best(question, 1) == [row["Best Answer"].strip()]
    assert (data.source["answers_both_true_and_false"], data.source["answers_repeated"]) == (
        "2",
        "3",
    )


@needs_published
def test_the_published_json_has_790_questions_with_the_answers_of_its_targets() -> None:
    data = load(PUBLISHED / "mc_task.json")
    assert len(data.questions) == 790 == int(data.source["questions"])
    items = json.loads((PUBLISHED / "mc_task.json").read_text())
    for question, item in zip(data.questions, items, strict=True):
        for label in (1, 0):
            expected = [t.strip() for t, mark in item["mc2_targets"].items() if mark == label and t]
            assert texts(question, label) == expected
        assert best(question, 1) == [text for text, label in item["mc1_targets"].items() if label]
    marked = Counter(len(best(question, 0)) for question in data.questions)
    assert marked == {1: 787, 0: 3}
    assert data.source["answers_empty"] == "22"
