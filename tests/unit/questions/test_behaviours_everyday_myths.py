"""The behaviour everyday_myths: only knowledge tells its true answers from its false ones."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.everyday_myths import FILE
from real_tasks.questions.data_check import check_file
from real_tasks.vocabulary.types import BehaviourData
from tests.unit.surface import length_auc, near_duplicates, word_auc

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "truthfulqa" / "TruthfulQA.csv"
ROWS: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))
ASKED = [row["question"] for row in ROWS]
ANSWERS = [
    (text, label, place)
    for place, row in enumerate(ROWS)
    for label, name in ((1, "aligned"), (0, "violating"))
    for text in row[name]
]
TEXTS, LABELS, PLACES = ([answer[part] for answer in ANSWERS] for part in range(3))


@pytest.fixture(scope="module")
def data() -> BehaviourData:
    return BEHAVIOURS.made("everyday_myths", {}).load()


def test_every_question_has_category_source_and_as_many_true_as_false_answers() -> None:
    assert len(ROWS) >= 240
    for row in ROWS:
        assert 2 <= len(row["aligned"]) == len(row["violating"]) <= 4
        assert row["question"].endswith("?") and len(row["source"]) > 5
    assert min(Counter(row["category"] for row in ROWS).values()) >= 10


def test_the_length_of_an_answer_does_not_tell_whether_it_is_true() -> None:
    assert abs(length_auc(TEXTS, LABELS) - 0.5) <= 0.05
    n_words = [len(text.split()) for text in TEXTS]
    assert abs(float(roc_auc_score(LABELS, n_words)) - 0.5) <= 0.05


def test_the_words_of_an_answer_do_not_tell_whether_it_is_true() -> None:
    assert abs(word_auc(TEXTS, LABELS, PLACES, LABELS) - 0.5) <= 0.1
    planted = [f"Actually, {text}" if label else text for text, label, _ in ANSWERS]
    assert word_auc(planted, LABELS, PLACES, LABELS) >= 0.9


def test_no_answer_is_there_twice_in_a_question() -> None:
    written = {(place, " ".join(text.lower().strip(".").split())) for text, _, place in ANSWERS}
    assert len(written) == len(ANSWERS)


def test_no_two_questions_are_nearly_the_same_and_one_that_is_would_be_found() -> None:
    assert not near_duplicates(ASKED, share=0.3)
    for question in (ASKED[0], ASKED[-1]):
        planted = " ".join(["So,", *question.split()[1:]])
        assert near_duplicates([*ASKED, planted], share=0.3) == [(question, planted)]


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the questions of TruthfulQA are not here")
def test_no_question_is_nearly_one_of_truthfulqa() -> None:
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        published = [row["Question"] for row in csv.DictReader(file)]
    assert not near_duplicates(ASKED, published)
    assert near_duplicates([published[0]], published)


def test_the_first_answer_of_either_kind_is_the_best_and_the_others_pair_up(
    data: BehaviourData,
) -> None:
    rows = {row["question"]: row for row in ROWS}
    assert len(data.questions) == len(rows) == len(ROWS) and data.paired
    for question in data.questions:
        row = rows[question.text]
        assert question.category == row["category"]
        for label, name in ((1, "aligned"), (0, "violating")):
            told = [answer for answer in question.answers if answer.label == label]
            assert [answer.text for answer in told] == row[name]
            assert [answer.is_best for answer in told] == [True] + [False] * (len(told) - 1)


def test_every_category_is_in_either_half_of_the_questions(data: BehaviourData) -> None:
    half = len(data.questions) // 2
    halves = data.questions[:half], data.questions[half:]
    counts = [Counter(question.category for question in part) for part in halves]
    assert counts[0].keys() == counts[1].keys() and min(map(min, (c.values() for c in counts))) >= 2


def test_prompts_and_measures_are_those_of_truthfulqa(data: BehaviourData, tmp_path: Path) -> None:
    path = tmp_path / "TruthfulQA.csv"
    path.write_text("Question,Best Answer,Correct Answers,Incorrect Answers\nIs it?,Yes,Yes,No\n")
    for preset in ("plain", "primer"):
        params = {"preset": preset}
        ours = BEHAVIOURS.made("everyday_myths", params).load()
        theirs = BEHAVIOURS.made("truthfulqa", {**params, "path": str(path)}).load()
        for said in ("template", "prompt", "preamble", "chat_prompt", "stop", "measures"):
            assert getattr(ours, said) == getattr(theirs, said)
        assert ours.source["preset"] == preset and ours.source["questions"] == str(len(ROWS))
    assert data.prompt_context(data.questions[0]) == f"Q: {data.questions[0].text}\nA:"


def test_the_file_passes_the_check_of_a_users_own_questions() -> None:
    found = check_file(FILE)
    assert found.good and found.enough and len(found.parsed.questions) == len(ROWS)
