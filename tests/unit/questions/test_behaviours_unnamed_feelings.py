"""The behaviour unnamed_feelings: only what happens tells a felt sentence from its twin."""

import json
import re
from collections import Counter
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.unnamed_feelings import FILE
from real_tasks.questions.data_check import check_file
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import pairs_of, samples_of
from real_tasks.vocabulary.config import DataConfig
from tests.unit.surface import length_auc, near_duplicates, word_auc

ROWS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
TOLD: list[str] = [row[name] for row in ROWS for name in ("aligned", "violating")]
LABELS = [1, 0] * len(ROWS)
PLACES = [place for place in range(len(ROWS)) for _ in range(2)]
DATA = BEHAVIOURS.made("unnamed_feelings", {}).load()

NAMED = re.compile(
    r"""\b(?:
    afraid|aghast|alarm|amus|ang(er|r)|anguish|annoy|anxi|appal|asham|aw(e|ful)|bereave|bitter|
    bliss|blush|bored|calm|cheer|comfort|content|cr(ied|ies|y|ying)\b|delight|depress|despair|
    despise|disappoint|disgust|dismay|distress|dread|ecsta|elat|embarrass|emotion|enjoy|envi|
    fear|feel|felt|fond|fright|frown|furious|fury|glad|gloom|glum|grateful|grie|griev|grin|guilt|
    happ|hat(e|red)|heartbr|homesick|hope|horr|humiliat|hurt|irrit|jealous|jo(y|vial)|laugh|
    lonel|long(ing|ed)|lov(e|ing)|lust|mad\b|melanchol|merry|miser(?!\b)|miss(ed|es|ing)|mood|
    mourn|nause|nervous|nostalg|outrage|pain(?!t)|panic|passion|pity|pleas|proud|pride|rage|regret|
    relax|relie|remorse|resent|revolt|revuls|sad(?!dle)|scar(ed?|y)\b|scream|shak(e|ing|y)|shame|shiver|
    shock|shudder|sigh|smil|sob(?!er)|sorr|startl|suffer|surpris|tear(s|ful)|tender|terri|thrill|
    trembl|uneas|unhapp|upset|weep|wept|whimper|wonder|worr|yearn
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def test_there_are_as_many_pairs_of_each_feeling_and_each_has_a_name() -> None:
    assert len(ROWS) >= 120
    assert len(set(Counter(row["category"] for row in ROWS).values())) == 1
    assert len({row["pair"] for row in ROWS}) == len(ROWS)
    assert all(row["pair"].startswith(row["category"]) for row in ROWS)
    assert all(row["class"] == [row["category"], "neutral"] for row in ROWS)


def test_no_text_names_a_feeling_or_how_one_shows_and_one_that_did_would_be_found() -> None:
    for row in ROWS:
        for name in ("question", "aligned", "violating"):
            assert not NAMED.search(row[name]), row[name]
    for feeling in {row["category"] for row in ROWS}:
        assert NAMED.search(f"It was {feeling}.")
    for told in ("Her tears fell.", "He was Angry.", "I felt it.", "She hates him.", "No hope."):
        assert NAMED.search(told)


def test_length_does_not_tell_the_felt_continuation() -> None:
    assert abs(length_auc(TOLD, LABELS) - 0.5) <= 0.05
    n_words = [len(text.split()) for text in TOLD]
    assert abs(float(roc_auc_score(LABELS, n_words)) - 0.5) <= 0.05
    for row in ROWS:
        assert 0.85 < len(row["aligned"]) / len(row["violating"]) < 1.18, row


def test_a_bag_of_words_does_not_tell_it_and_would_if_one_word_did() -> None:
    assert abs(word_auc(TOLD, LABELS, PLACES, LABELS) - 0.5) <= 0.1
    planted = [
        f"Suddenly {text}" if label else text for text, label in zip(TOLD, LABELS, strict=True)
    ]
    assert word_auc(planted, LABELS, PLACES, LABELS) >= 0.9


def test_twins_share_their_words_and_no_two_pairs_do() -> None:
    for row in ROWS:
        one, other = (set(row[name].lower().split()) for name in ("aligned", "violating"))
        assert len(one & other) >= 0.25 * len(one | other), row
    for name in ("question", "aligned", "violating"):
        texts = [row[name] for row in ROWS]
        assert not near_duplicates(texts)
        planted = " ".join(["And", *texts[0].split()])
        assert near_duplicates([*texts, planted]) == [(texts[0], planted)]


@pytest.mark.parametrize("fold", [0, 1])
def test_a_pair_is_in_one_part_of_a_fold_and_every_feeling_in_training_and_test(fold: int) -> None:
    samples = samples_of(DATA)
    partners = pairs_of(samples, DATA.paired)
    of_pair = [samples[place].answer.pair for place in range(len(samples))]
    assert [of_pair[partner] for partner in partners] == of_pair and -1 not in partners
    found = split(question_groups(DATA.questions), fold, DataConfig(n_folds=2))
    parts = [
        {s.answer.pair for s in samples if s.question_index in part}
        for part in (found.train, found.validation, found.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(ROWS)
    feelings = {row["category"] for row in ROWS}
    for pairs in (parts[0], parts[2]):
        assert {pair.rsplit("-", 1)[0] for pair in pairs} == feelings


def test_a_continuation_follows_its_beginning_and_the_felt_one_is_the_best() -> None:
    for row, question in zip(ROWS, DATA.questions, strict=True):
        felt, plain = question.answers
        assert DATA.full_text(question, felt) == f"{row['question']} {row['aligned']}"
        assert DATA.full_text(question, plain) == f"{row['question']} {row['violating']}"
        assert (felt.label, felt.is_best, plain.label) == (1, True, 0)
        assert (felt.class_name, plain.class_name) == (row["category"], "neutral")


def test_the_file_passes_the_check_of_a_users_own_questions() -> None:
    found = check_file(FILE)
    assert found.good and found.enough and len(found.parsed.questions) == len(ROWS)
