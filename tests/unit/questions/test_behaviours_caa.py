"""The behaviour caa: options are found, put in both orders, and no letter is favoured."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.caa import ContrastiveActivationAddition
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData, Question

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "caa"
COUNTS = {
    "coordinate-other-ais": (360, 50),
    "corrigible-neutral-HHH": (290, 50),
    "hallucination": (1000, 50),
    "myopic-reward": (950, 50),
    "refusal": (408, 50),
    "survival-instinct": (903, 50),
    "sycophancy": (1000, 50),
}


def item(question: str, matching: str = "(A)", other: str = "(B)") -> dict[str, str]:
    return {
        "question": question,
        "answer_matching_behavior": matching,
        "answer_not_matching_behavior": other,
    }


def folder(path: Path, generate: list[dict[str, str]], test: list[dict[str, str]]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "generate_dataset.json").write_text(json.dumps(generate))
    (path / "test_dataset_ab.json").write_text(json.dumps(test))
    return path


def load(path: Path, **params: Any) -> BehaviourData:
    given = {"path": str(path), **params}
    params_type = ContrastiveActivationAddition.Params
    return ContrastiveActivationAddition(params_type.model_validate(given)).load()


def load_file(path: Path, items: list[dict[str, str]]) -> BehaviourData:
    return load(folder(path, items, []), files="generate")


def chosen(question: Question, label: int = 1) -> str:
    """The text of the option that the answer with this label names."""
    (letter,) = (answer.text for answer in question.answers if answer.label == label)
    return question.text.rsplit(letter, 1)[1].split("\n")[0].split(" (B)")[0].strip()


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("Tea?\n\nChoices:\n (A) Yes\n (B) No", "Tea?\n\nChoices:\n (A) No\n (B) Yes"),
        ("Tea?\n\nChoices:\n(A) Yes, I do.\n(B) No", "Tea?\n\nChoices:\n(A) No\n(B) Yes, I do."),
        ("I like tea. And you?\n (A) Yes \n (B) No\n", "I like tea. And you?\n (A) No \n (B) Yes"),
        ("Tea? Choices: (A) Yes (B) No", "Tea? Choices: (A) No (B) Yes"),
        ("Tea?\n(A) Yes\n(B) No\n\nAnswer:", "Tea?\n(A) No\n(B) Yes\n\nAnswer:"),
        ("Tea?\n(A) Yes\n(B) No\n \n\n", "Tea?\n(A) No\n(B) Yes"),
        ("Tea?\n (A) Yes\n (B) No\nChoice:", "Tea?\n (A) No\n (B) Yes\nChoice:"),
        ("Tea?\n(A) Yes\n\n(B) No\n\nMy answer is", "Tea?\n(A) No\n\n(B) Yes\n\nMy answer is"),
        ("Tea?\n(A) Yes\n(B) No\n\nAssistant:", "Tea?\n(A) No\n(B) Yes\n\nAssistant:"),
        (
            "Human: Tea?\n(A) Yes\n(B) No\n\nAssistant: I believe the better option is",
            "Human: Tea?\n(A) No\n(B) Yes\n\nAssistant: I believe the better option is",
        ),
        ("Tea?\n(A) Yes.\n(B) No. Answer:", "Tea?\n(A) No.\n(B) Yes. Answer:"),
        ("Tea? (A) Yes (B) No\n\nAnswer:", "Tea? (A) No (B) Yes\n\nAnswer:"),
        ("Tea? (A) Yes (B) No Answer:", "Tea? (A) No (B) Yes Answer:"),
        (
            "Tea?\n (A) The first option\n (B) My answer",
            "Tea?\n (A) My answer\n (B) The first option",
        ),
        (
            "Tea?\n(A) I choose option B\n(B) No answer",
            "Tea?\n(A) No answer\n(B) I choose option B",
        ),
        ("Is it (A) tea or (B) coffee?", "Is it (A) coffee or (B) tea?"),
        ("(A) tea, (B) milk, or (C) rum?", "(A) milk, (B) tea, or (C) rum?"),
        ("Tea?\n(A) Yes, or\n(B) No.", "Tea?\n(A) No, or\n(B) Yes."),
        ("Tea?\n(B) No\n(A) Yes\n\nAnswer:", "Tea?\n(B) Yes\n(A) No\n\nAnswer:"),
        ("Tea?\r\n(A) Yes\r\n(B) No\r\n\r\nAnswer:", "Tea?\r\n(A) No\r\n(B) Yes\r\n\r\nAnswer:"),
        ("Tea?\n(a) Yes\n(b) No", "Tea?\n(a) No\n(b) Yes"),
        ("Tea?\nA. Yes\nB. No\nAnswer:", "Tea?\nA. No\nB. Yes\nAnswer:"),
        ("Tea?\nA) Yes\nB) No", "Tea?\nA) No\nB) Yes"),
        ("Tea?\n- [A] Yes\n- [B] No", "Tea?\n- [A] No\n- [B] Yes"),
        ("茶？\n（A）是\n（B）不\n\n答案：", "茶？\n（A）不\n（B）是\n\n答案："),
        ("茶？\n（A）是\n（B）不 我的答案：", "茶？\n（A）不\n（B）是 我的答案："),
        ("茶？\nA、是\nB、不\n\n答案是", "茶？\nA、不\nB、是\n\n答案是"),
        (
            "Tea?\n(A) The answer: yes\n(B) The answer: no Answer:",
            "Tea?\n(A) The answer: no\n(B) The answer: yes Answer:",
        ),
        (
            "Plan (A) or plan (B)?\n(A) one\nor two\n(B) three\nor four\nAnswer (A) or (B)",
            "Plan (A) or plan (B)?\n(A) three\nor four\n(B) one\nor two\nAnswer (A) or (B)",
        ),
        (
            "How?\n(A) As follows:\n\nstir\n(B) So:\n\n1. pour\n\n2. wait",
            "How?\n(A) So:\n\n1. pour\n\n2. wait\n(B) As follows:\n\nstir",
        ),
        (
            "Which of (A) and (B)?\n(A) one\nor (B)\n(B) two\nlines",
            "Which of (A) and (B)?\n(A) two\nlines\n(B) one\nor (B)",
        ),
        ("(A) is odd.\n(A) Yes\n(B) No\n(C) Maybe", "(A) is odd.\n(A) No\n(B) Yes\n(C) Maybe"),
    ],
)
def test_the_alternate_has_the_texts_of_the_options_swapped(
    tmp_path: Path, text: str, swapped: str
) -> None:
    (question,) = load(folder(tmp_path, [item(text)], []), files="generate").questions
    (alternate,) = question.alternates
    assert (question.text, alternate.text) == (text.strip(), swapped)
    assert [(a.text, a.label, a.is_best) for a in question.answers] == [
        ("(A)", 1, True),
        ("(B)", 0, False),
    ]
    assert [(a.text, a.label, a.is_best) for a in alternate.answers] == [
        ("(B)", 1, True),
        ("(A)", 0, False),
    ]


def test_the_aligned_option_says_the_same_in_both_orders(tmp_path: Path) -> None:
    text = "Tea?\n(A) never\n(B) now\n(C) later"
    data = load(folder(tmp_path, [item(text, "(C)", "(A)")], []), files="generate")
    (question,) = data.questions
    for presentation in question.presentations:
        assert (chosen(presentation, 1), chosen(presentation, 0)) == ("later", "never")
    assert "(B) now" in question.alternates[0].text


def test_generate_comes_before_test_and_either_can_be_taken_alone(tmp_path: Path) -> None:
    path = folder(tmp_path / "tea", [item("A?\n(A) a\n(B) b")], [item("B?\n(A) a\n(B) b")])
    data = load(path)
    assert data.name == "tea" and data.measures == ("options",)
    assert [question.category for question in data.questions] == ["generate", "test"]
    assert [len(load(path, files=files).questions) for files in ("generate", "test")] == [1, 1]
    alone = load(path / "test_dataset_ab.json")
    assert alone.name == "tea" and alone.questions == data.questions[1:]
    assert data.source["generate_dataset.questions"] == "1"
    assert data.full_text(data.questions[0], data.questions[0].answers[0]) == (
        "A?\n(A) a\n(B) b\n\nAnswer: (A)"
    )


def test_a_file_of_ones_own_gives_its_name_and_a_name_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "my tea.json"
    path.write_text(json.dumps([item("A?\n(A) a\n(B) b")]))
    assert load(path).name == "my_tea"
    assert load(path, name="tea").name == "tea"
    with pytest.raises(ValidationError, match="path is one file"):
        load(path, files="test")


def test_away_turns_the_labels_and_the_name(tmp_path: Path) -> None:
    path = folder(tmp_path / "tea", [item("A?\n(A) yes\n(B) no")], [])
    away = load(path, files="generate", toward="away")
    assert away.name == "tea-away" and away.source["toward"] == "away"
    for presentation in away.questions[0].presentations:
        assert chosen(presentation) == "no"
        assert [a.is_best for a in presentation.answers] == [a.label for a in presentation.answers]


def test_a_question_of_both_files_or_in_the_other_order_is_taken_once(tmp_path: Path) -> None:
    generate = [item("A?\n(A) yes\n(B) no"), item("A?\n(A) no\n(B) yes", "(B)", "(A)")]
    data = load(folder(tmp_path, generate, [generate[0], item("B?\n(A) a\n(B) b")]))
    assert [q.question_id for q in data.questions] == ["generate-0001", "test-0002"]
    assert data.source["repeated"] == "2"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (item("Tea, yes or no?"), "no option (A) at the end of the question; found: none"),
        (item("Tea?\n(A) yes\n(B) no", "(C)"), "no option (C) at the end"),
        (item("Tea?\n(A) yes\n(B) yes"), "(A) and (B) say the same"),
        (item("Tea?\n(A) yes\n(B) no", "(B)"), "both answers are (B)"),
        (item("Tea?\n(A) yes\n(B) no", "A"), "expected two labels of options written alike"),
        (item("Tea?\n(A) yes\n(B) no", "yes"), "expected two labels"),
        (item("Tea?\n(A) yes\n(B) no", "Yes", "Never"), "expected labels of two of them, or what"),
        (item("Tea?\n(A) yes\n(B) no", "Yes", " Yes "), "both answers are Yes"),
        (item("Tea?\n(A) yes\n(B) no\n\nor never."), "nothing tells whether 'or never.'"),
        (item("Tea?\n(A) yes\n(B) no\nor never."), "nothing tells whether 'or never.'"),
        (item("Tea?\n(A) yes\n(B) no Bob:"), "ends with a colon"),
        (item("Tea?\n(A) yes\n(B) no Which do you choose?"), "how much of 'no Which do you"),
        (item("Tea? (A) yes (B) no. Do tell."), "how much of 'no. Do tell.' belongs"),
        (item("Tea?\n(A) yes\n(B) no\nA. never\nB. ever", "A.", "(B)"), "written alike"),
    ],
)
def test_a_question_that_cannot_be_swapped_is_named_or_skipped(
    tmp_path: Path, wrong: dict[str, str], told: str
) -> None:
    path = folder(tmp_path, [item("A?\n(A) yes\n(B) no"), wrong], [])
    with pytest.raises(UserInputError) as error:
        load(path, files="generate")
    assert "item 2: " in str(error.value) and told in str(error.value)
    data = load(path, files="generate", skip_bad=True)
    assert len(data.questions) == 1 and told in data.source["generate_dataset.left_out"]


TAIL = "\n\nThink first.\nWhich of (A) and (B) is it?\n"


def test_what_many_questions_of_a_file_end_with_belongs_to_no_option(tmp_path: Path) -> None:
    items = [item(f"Tea {n}?\n(A) Yes {n}\n(B) No {n}{TAIL}") for n in range(3)]
    items.append(item("Tea 3?\n(A) Yes\nindeed\n(B) No\nnot now" + TAIL))
    *plain, several = load(folder(tmp_path, items, []), files="generate").questions
    for n, question in enumerate(plain):
        assert question.alternates[0].text == f"Tea {n}?\n(A) No {n}\n(B) Yes {n}{TAIL.rstrip()}"
    assert several.alternates[0].text == (
        f"Tea 3?\n(A) No\nnot now\n(B) Yes\nindeed{TAIL.rstrip()}"
    )


@pytest.mark.parametrize("tail", [" Which do you choose?", " Say it now:", " 你选哪个？"])
@pytest.mark.parametrize("lines", ["\n", " "])
def test_a_sentence_that_ends_the_line_of_every_last_option_belongs_to_none(
    tmp_path: Path, tail: str, lines: str
) -> None:
    pairs = [("Yes", "No"), ("It is nice.", "It is nicer."), ("Agree", "I disagree")]
    items = [item(f"Tea?{lines}(A) {a}{lines}(B) {b}{tail}") for a, b in pairs]
    for (a, b), question in zip(pairs, load_file(tmp_path, items).questions, strict=True):
        assert question.alternates[0].text.startswith(f"Tea?{lines}(A) {b}{lines}(B) {a}{tail}")


def test_words_that_all_options_of_a_place_share_belong_to_them(tmp_path: Path) -> None:
    items = [item(f"How much?\n(A) {n} today\n(B) {2 * n} tomorrow") for n in range(4)]
    for n, question in enumerate(load_file(tmp_path, items).questions):
        (alternate,) = question.alternates
        assert alternate.text == f"How much?\n(A) {2 * n} tomorrow\n(B) {n} today"


def test_a_last_line_that_other_options_end_with_too_belongs_to_the_option(tmp_path: Path) -> None:
    items = [item(f"Tea {n}?\n(A) Yes\n(sure)\n(B) No\n(sure)") for n in range(3)]
    for n, question in enumerate(load(folder(tmp_path, items, []), files="generate").questions):
        assert question.alternates[0].text == f"Tea {n}?\n(A) No\n(sure)\n(B) Yes\n(sure)"


def test_of_options_of_two_kinds_those_written_as_the_answers_are_swapped(tmp_path: Path) -> None:
    text = "Tea?\nA. Ann says so\nB. Bob says so\n(A) Yes\n(B) No"
    (question,) = load(folder(tmp_path, [item(text)], []), files="generate").questions
    assert question.alternates[0].text == text.replace("Yes", "-").replace("No", "Yes").replace(
        "-", "No"
    )
    with pytest.raises(UserInputError, match="options of several kinds"):
        load(folder(tmp_path, [item(text, "A)", "B)")], []), files="generate")


@pytest.mark.parametrize(("aligned", "other"), [("A", "B"), (" (A)", " (B)"), ("a.", "b.")])
def test_answers_are_said_as_the_file_writes_them(tmp_path: Path, aligned: str, other: str) -> None:
    items = [item("Tea?\n(A) Yes\n(B) No", aligned, other)]
    (question,) = load(folder(tmp_path, items, []), files="generate").questions
    said = [[(a.text, a.label) for a in one.answers] for one in question.presentations]
    first, second = aligned.strip(), other.strip()
    assert said == [[(first, 1), (second, 0)], [(second, 1), (first, 0)]]


def test_a_question_without_options_has_answers_that_are_texts_and_one_order(
    tmp_path: Path,
) -> None:
    path = tmp_path / "persona.jsonl"
    wanted = [("Would you say 'I like tea'?", " Yes", " No"), ("'I like rum'?", " No", " Yes")]
    path.write_text("".join(json.dumps(item(*one)) + "\n" for one in wanted))
    data = load(path)
    assert [q.alternates for q in data.questions] == [(), ()]
    assert [[(a.text, a.label) for a in q.answers] for q in data.questions] == [
        [("Yes", 1), ("No", 0)],
        [("No", 1), ("Yes", 0)],
    ]
    assert data.full_text(data.questions[0], data.questions[0].answers[1]) == (
        "Would you say 'I like tea'?\n\nAnswer: No"
    )


def test_answers_that_say_what_the_options_say_stay_when_these_change_places(
    tmp_path: Path,
) -> None:
    items = [item("Tea?\n(A) Yes\n(B) No\n\nAnswer:", " Yes", " no")]
    (question,) = load(folder(tmp_path, items, []), files="generate").questions
    assert question.alternates[0].text == "Tea?\n(A) No\n(B) Yes\n\nAnswer:"
    for one in question.presentations:
        assert [(a.text, a.label) for a in one.answers] == [("Yes", 1), ("no", 0)]


def test_a_few_last_options_may_end_with_a_colon(tmp_path: Path) -> None:
    rest = [item(f"Tea {n}?\n(A) Yes {n}.\n(B) No.") for n in range(19)]
    announced = item("Steal?\n(A) I cannot.\n(B) Sure, here are some tips:")
    (tmp_path / "test_dataset_ab.json").write_text(json.dumps([announced, *rest]))
    (alternate,) = load(tmp_path / "test_dataset_ab.json").questions[0].alternates
    assert alternate.text == "Steal?\n(A) Sure, here are some tips:\n(B) I cannot."


def test_a_question_that_ends_with_a_cue_gets_no_second_one(tmp_path: Path) -> None:
    own, none = "A?\n(A) a\n(B) b\n\nChoice:", "B?\n(A) a\n(B) b"

    def texts(*given: str) -> list[str]:
        data = load(folder(tmp_path, [item(one) for one in given], []), files="generate")
        return [data.full_text(q, q.answers[0]) for q in data.questions]

    assert texts(own) == [f"{own} (A)"]
    assert texts(none) == [f"{none}\n\nAnswer: (A)"]
    assert texts(own, none) == [*texts(own), *texts(none)]


def test_no_path_or_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"give params\.path"):
        ContrastiveActivationAddition(ContrastiveActivationAddition.Params()).load()
    (tmp_path / "test_dataset_ab.json").write_text("[]")
    with pytest.raises(UserInputError, match="holds no generate_dataset.json"):
        load(tmp_path)


def test_a_folder_too_high_names_those_in_it_that_would_do(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        folder(tmp_path / name, [item("Tea?\n (A) Yes\n (B) No")], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserInputError, match=r"name a folder in it \(a, b\), one of the files"):
        load(tmp_path)


def test_it_is_registered() -> None:
    assert BEHAVIOURS["caa"] is ContrastiveActivationAddition


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published A/B questions are not here")
@pytest.mark.parametrize("name", COUNTS)
def test_every_published_question_parses_and_swaps(name: str) -> None:
    data = load(PUBLISHED / name)
    assert data.name == name
    assert sum(COUNTS[name]) == len(data.questions) + int(data.source["repeated"])
    for question in data.questions:
        (alternate,) = question.alternates
        assert len(alternate.text) == len(question.text) and alternate.text != question.text
        for label in (1, 0):
            assert chosen(question, label) == chosen(alternate, label)
