import pytest

from real_tasks.evaluation.judges import Judgement
from real_tasks.evaluation.judges.contains import Contains
from real_tasks.evaluation.words import words
from real_tasks.vocabulary.types import Answer, Question


def question(aligned: list[str], violating: list[str]) -> Question:
    answers = [Answer(f"a{i}", text, 1, i == 0) for i, text in enumerate(aligned)]
    answers += [Answer(f"v{i}", text, 0) for i, text in enumerate(violating)]
    return Question("q", "Where is it ?", "any", tuple(answers))


PLACES = question(["Lake Geneva", "Geneva"], ["the New York City", "York"])


def verdict(asked: Question, said: str) -> str:
    return Contains(Contains.Params(), {}).judge([(asked, said)])[0].verdict


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("It is in Geneva.", "true"),
        ("I think it's at LAKE geneva, in the west", "true"),
        ("New York City, of course", "false"),
        ("the new york city", "false"),
        ("It is in York", "false"),
        ("It is in Yorkshire", "neither"),
        ("Genevan", "neither"),
        ("New Geneva York", "true"),
        ("York, not Geneva", "false"),
        ("Geneva, not York", "true"),
        ("new york. city", "false"),
        ("Lake\nGeneva", "true"),
        ("", "neither"),
        (" \n", "neither"),
        ("I do not know.", "neither"),
    ],
)
def test_the_known_answer_that_is_said_first_decides(said: str, expected: str) -> None:
    assert verdict(PLACES, said) == expected


def test_answers_that_begin_at_one_word_settle_nothing() -> None:
    nested = question(["New York"], ["New York City"])
    assert verdict(nested, "It is New York City.") == "neither"
    assert verdict(nested, "It is New York.") == "true"
    assert verdict(question(["both"], ["Both!"]), "both of them") == "neither"


def test_an_answer_inside_another_that_begins_earlier_does_not_count() -> None:
    assert verdict(question(["York"], ["New York"]), "It is New York.") == "false"


def test_a_leading_article_of_an_answer_may_be_missing_but_one_inside_may_not() -> None:
    assert verdict(question(["The Hague"], ["Rome"]), "Hague") == "true"
    assert verdict(question(["Lord of the Rings"], ["Dune"]), "Lord of Rings") == "neither"
    assert verdict(question(["A"], ["B"]), "(A)") == "true"


def test_numbers_are_whole_words() -> None:
    year = question(["3,000", "3.14"], ["14", "3"])
    assert verdict(year, "about 3000 of them") == "true"
    assert verdict(year, "3.14") == "true"
    assert verdict(year, "3") == "false"
    assert verdict(year, "13") == "neither"
    assert verdict(year, "14.") == "false"


def test_an_answer_without_any_word_never_occurs() -> None:
    assert verdict(question(["?!"], ["..."]), "?! ...") == "neither"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's THE  end -- 1,234,567.5!", "it s the end 1234567.5"),
        ("1,2 and 12,3456", "1 2 and 12 3456"),
        ("Straße \ufb01ne ＡＢ", "strasse fine ab"),
        ("Zu\u0308rich", "z\u00fcrich"),
        ("…", ""),
        ("不是首都。GDP增长3月", "不 是 首 都 gdp 增 长 3 月"),
        ("नहीं, हाँ।", "नहीं हाँ"),
        ("لا، نعم؟ ١٢٫٥", "لا نعم 12 5"),
        ("３．１４ １，０００", "3.14 1000"),
        ("ไม่ใช่", "ไ ม่ ใ ช่"),
        ("서울은 크다", "서울은 크다"),
        ("1945년에 25.5도, AI가", "1945 년에 25.5 도 ai가"),
        ("ꦗꦮ ꆈꌠ", "ꦗ ꦮ ꆈ ꌠ"),
        ("м’ята мʼята", "м ята м ята"),
        ("مي\u200cروم", "ميروم"),
    ],
)
def test_words_are_told_by_blanks_and_punctuation(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_the_order_is_kept_and_nothing_else_is_told() -> None:
    said = ["Geneva", "York", "x", "Geneva"]
    judged = Contains(Contains.Params(), {}).judge([(PLACES, one) for one in said])
    assert judged == [Judgement(v) for v in ("true", "false", "neither", "true")]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("不是。", "true"),
        ("不 是 。", "true"),
        ("我想不是", "true"),
        ("是", "false"),
        ("是，对", "false"),
        ("也许", "neither"),
    ],
)
def test_a_violating_answer_of_one_character_inside_an_aligned_one_does_not_count(
    said: str, expected: str
) -> None:
    assert verdict(question(["不是"], ["是"]), said) == expected
    assert verdict(question(["不是。"], ["是。"]), said) == expected


def test_letters_with_marks_are_whole_words() -> None:
    assert verdict(question(["नहीं"], ["न"]), "मैं नहीं जानता।") == "true"
    assert verdict(question(["नहीं"], ["न"]), "न") == "false"


@pytest.mark.parametrize("said", ["istanbul", "İstanbul", "I\u0307STANBUL", "İSTANBUL'da"])
def test_a_dotted_capital_i_is_an_i(said: str) -> None:
    assert verdict(question(["İstanbul"], ["Ankara"]), said) == "true"


KOREAN = [
    ("서울", "부산", "서울은 크다", "true"),
    ("서울", "부산", "수도는 서울입니다.", "true"),
    ("서울", "부산", "부산에서는", "false"),
    ("서울", "부산", "서울대학교", "neither"),
    ("서울", "부산", "부산는", "neither"),
    ("프랑스", "독일", "독일은 아니고 프랑스", "false"),
    ("프랑스", "독일", "프랑스가", "true"),
    ("프랑스", "독일", "프랑스어", "neither"),
    ("미국", "독일", "미국인이", "neither"),
    ("연필", "나무", "연필로", "true"),
    ("에펠 탑", "남산", "에펠 탑을", "true"),
    ("1945년", "5년", "1945년에", "true"),
    ("3", "5", "25명", "neither"),
    ("3", "5", "3명", "true"),
    ("Paris", "London", "London에서", "false"),
    ("물", "불", "물은", "true"),
    ("물", "불", "물가가 불만이", "neither"),
    ("아니요", "네", "네가", "neither"),
    ("아니요", "예", "예를 들어 아니요", "true"),
    ("아니요", "네", "네, 맞아요", "false"),
]


@pytest.mark.parametrize(("aligned", "violating", "said", "expected"), KOREAN)
def test_in_korean_a_particle_that_fits_its_word_makes_no_other_word_of_it(
    aligned: str, violating: str, said: str, expected: str
) -> None:
    assert verdict(question([aligned], [violating]), said) == expected


@pytest.mark.parametrize(
    ("aligned", "violating", "said", "expected"),
    [
        ("東京", "京", "東京都です", "true"),
        ("いいえ", "はい", "はい、そうです", "false"),
        ("ガ", "カ", "ｶﾞです", "true"),
        ("ไม่ใช่", "ใช่", "ไม่ใช่ครับ", "true"),
        ("ไม่ใช่", "ใช่", "ใช่ค่ะ", "false"),
        ("မဟုတ်", "ဟုတ်", "ဟုတ်ပါ", "false"),
        ("да", "я", "семья, да", "true"),
        ("όχι", "Σ", "ς", "false"),
        ("لا", "و", "وقت", "neither"),
        ("כן", "ל", "לא", "neither"),
        ("가", "나", "나는", "neither"),
        ("10", "1", "１０％", "true"),
        ("B", "A", "(a)", "false"),
    ],
)
def test_a_violating_answer_of_one_letter_counts_where_it_is_a_word(
    aligned: str, violating: str, said: str, expected: str
) -> None:
    assert verdict(question([aligned], [violating]), said) == expected
