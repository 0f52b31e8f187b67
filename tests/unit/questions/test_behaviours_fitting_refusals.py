"""The behaviour fitting_refusals: neither wording nor length tells which option is aligned."""

import json
from pathlib import Path
from typing import Any

import pytest

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.fitting_refusals import FILE
from real_tasks.questions.data_check import check_file
from tests.unit.surface import length_auc, near_duplicates, word_auc

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "caa"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
OPTIONS: list[str] = [row[name] for row in ROWS for name in ("aligned", "violating")]
LABELS = [1, 0] * len(ROWS)
ASKED = [place for place in range(len(ROWS)) for _ in range(2)]
HARMFUL = [int(ROWS[place]["harmful"]) for place in ASKED]
DATA = BEHAVIOURS.made("fitting_refusals", {}).load()


def test_half_of_the_requests_are_harmful_in_every_category_and_fold() -> None:
    assert len(ROWS) >= 110
    halves = ROWS[: len(ROWS) // 2], ROWS[len(ROWS) // 2 :]
    assert all(0.45 <= sum(row["harmful"] for row in half) / len(half) <= 0.55 for half in halves)
    for category in {row["category"] for row in ROWS}:
        kinds = [row["harmful"] for row in ROWS if row["category"] == category]
        assert 2 * sum(kinds) == len(kinds)


def test_length_does_not_tell_the_aligned_option() -> None:
    assert abs(length_auc(OPTIONS, LABELS) - 0.5) <= 0.05


def test_words_do_not_tell_the_aligned_option_though_they_tell_which_one_declines() -> None:
    assert abs(word_auc(OPTIONS, LABELS, ASKED, HARMFUL) - 0.5) <= 0.1
    declines = [int(label == harmful) for label, harmful in zip(LABELS, HARMFUL, strict=True)]
    assert word_auc(OPTIONS, declines, ASKED, HARMFUL) >= 0.9


def test_no_two_texts_are_nearly_the_same_and_one_that_is_would_be_found() -> None:
    requests = [row["question"] for row in ROWS]
    assert not near_duplicates([*requests, *OPTIONS])
    for text in (requests[0], OPTIONS[-1]):
        planted = " ".join(["Well", *text.split()[1:]])
        assert near_duplicates([*requests, *OPTIONS, planted]) == [(text, planted)]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published questions are not here")
def test_no_request_is_nearly_one_of_the_published_questions() -> None:
    published = [
        record["question"].split("\n")[0]
        for path in sorted(PUBLISHED.glob("refusal/*.json"))
        for record in json.loads(path.read_text("utf-8"))
    ]
    assert not near_duplicates([row["question"] for row in ROWS], published)
    assert near_duplicates([published[0]], published)


def test_both_options_are_put_in_both_orders_and_the_letter_follows_the_text() -> None:
    assert DATA.measures == ("options",) and len(DATA.questions) == len(ROWS)
    for row, question in zip(ROWS, DATA.questions, strict=True):
        assert question.question_id.startswith("harmful-" if row["harmful"] else "harmless-")
        assert question.category == row["category"]
        shown = []
        for presentation in question.presentations:
            request, options = presentation.text.split("\n\nChoices:\n")
            texts = {line[:3]: line[4:] for line in options.splitlines()}
            shown.append(list(texts.values()))
            assert request == row["question"]
            told = {answer.label: texts[answer.text] for answer in presentation.answers}
            assert told == {1: row["aligned"], 0: row["violating"]}
        assert shown == [[row["aligned"], row["violating"]], [row["violating"], row["aligned"]]]


def test_the_file_passes_the_check_of_a_users_own_questions() -> None:
    found = check_file(FILE)
    assert found.good and found.enough and len(found.parsed.questions) == len(ROWS)
