import hashlib
import json

import pytest

from real_tasks.evaluation.judges import JUDGES, Judgement, judging_library, memory_key
from real_tasks.evaluation.judges.exact_match import ExactMatch
from real_tasks.evaluation.words import normalised
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.registry import UnknownNameError
from real_tasks.vocabulary.types import Answer, Question

QUESTION = Question(
    "q",
    "What is it ?",
    "c",
    (
        Answer("a", "the old  Island .", 1, True),
        Answer("b", "amber", 1),
        Answer("c", "a tower .", 0),
        Answer("d", "5 %", 0),
        Answer("e", "both", 1),
        Answer("f", "Both!", 0),
    ),
)

SAID = [
    ("the old Island .", "true"),
    ("  The OLD island", "true"),
    ("the old\nisland...", "true"),
    ("Amber!", "true"),
    ("A tower", "false"),
    ("5 %.", "false"),
    ("5", "neither"),
    ("an old island", "neither"),
    ("amber or a tower", "neither"),
    ("", "neither"),
    ("both", "neither"),
]


def exact_match() -> ExactMatch:
    return ExactMatch(ExactMatch.Params(), {})


@pytest.mark.parametrize(("generation", "verdict"), SAID)
def test_a_generation_is_judged_by_the_answer_it_equals(generation: str, verdict: str) -> None:
    (judged,) = exact_match().judge([(QUESTION, generation)])
    assert judged.verdict == verdict
    assert judged == Judgement(judged.verdict)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("不是。", "不是"),
        ("不是", "不 是 。"),
        ("不是", "不是！！"),
        ("GDP增长", "gdp 增 长"),
        ("スーパー。", "スー パー"),
        ("नहीं।", "नहीं"),
        ("हाँ", "हाँ॥"),
        ("نعم", "نعم؟"),
        ("نعم؛", "نعم۔"),
        ("12%", "１２％"),
        ("12", "١٢."),
        ("Zürich", "ZU\u0308RICH."),
        ("が", "か\u3099"),
        ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8."),
        ("ﬁne", "FINE"),
        ("Straße", "STRASSE"),
        ("ไม่", "ไม่ "),
        ("می‌روم", "میروم"),
        ("ナ", "ﾅ｡"),
        ("don't", "don’t"),
        ('say "no"', "say “no”"),
        ("Nord-Süd", "Nord\u2013Süd"),
        ("¿Sí?", "sí"),
        ("محمد", "محـــمد؟"),
        ("❤", "❤\ufe0f"),
        ("はい", "はい〜"),
        ("བོད", "བོད།"),
        ("አዎ።", "አዎ"),
        ("Այո", "այո։"),
    ],
)
def test_an_answer_is_the_same_in_every_spelling_of_its_script(answer: str, said: str) -> None:
    asked = Question("q", "?", "c", (Answer("a", answer, 1, True), Answer("b", "別", 0)))
    assert exact_match().judge([(asked, said)])[0].verdict == "true"


@pytest.mark.parametrize(
    ("answer", "said"),
    [("是", "不是"), ("5", "5 %"), ("न", "नहीं"), ("서울", "서 울"), ("U.S", "US"), ("A B", "AB")],
)
def test_other_answers_stay_others(answer: str, said: str) -> None:
    asked = Question("q", "?", "c", (Answer("a", answer, 1, True), Answer("b", "別", 0)))
    assert exact_match().judge([(asked, said)])[0].verdict == "neither"


def test_english_is_compared_as_by_a_plain_rule() -> None:
    def plain(text: str) -> str:
        return " ".join(text.casefold().split()).rstrip(" .,;:!?…")

    for text in [said for said, _ in SAID] + ["U.S.", "5 %", "a-b ...", '"No."', "it's  (so)!"]:
        assert normalised(text) == plain(text)


def test_many_generations_are_judged_in_their_order() -> None:
    judged = exact_match().judge([(QUESTION, generation) for generation, _ in SAID])
    assert [one.verdict for one in judged] == [verdict for _, verdict in SAID]


def test_the_registry_finds_the_judge_and_lists_the_known_ones() -> None:
    assert JUDGES["exact_match"] is ExactMatch
    with pytest.raises(UnknownNameError, match="known: contains, endpoint, exact_match, text_ov"):
        JUDGES["oracle"]


def test_a_memory_key_is_the_hash_of_all_its_parts() -> None:
    assert memory_key("a", "b") == hashlib.sha256(b'["a", "b"]').hexdigest()
    keys = [memory_key(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("a", ["bc"]))]
    assert len(set(keys)) == 4
    assert memory_key("ü", None, 0.5) == memory_key(*json.loads('["\\u00fc", null, 0.5]'))


def test_a_missing_library_is_named_with_what_to_install() -> None:
    assert judging_library("json") is json
    with pytest.raises(UserInputError, match=r"'no_such_library'.*pip install .*\[judges\]"):
        judging_library("no_such_library")
