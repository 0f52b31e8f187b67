"""The harness's own functions are the independent implementation."""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from real_tasks.evaluation.judges import Judgement
from real_tasks.evaluation.judges.text_overlap import NO_COMMENT, TextOverlap, references
from real_tasks.evaluation.words import words
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, Question

TEXT = "the moon is made of rock and cheese . no one knows U.S. 3,000 it's far-off , so they say"
WORDS = TEXT.split()
SIMILARITIES = ("rouge1", "rouge2", "rougeL", "bleu")
MOON = Question(
    "q",
    "What is the moon made of?",
    "any",
    (
        Answer("a", "The moon is made of rock", 1, True),
        Answer("b", "Rock.", 1),
        Answer("c", "The moon is made of cheese", 0),
        Answer("d", "Cheese and nothing else.", 0),
    ),
)


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    package = importlib.util.find_spec("lm_eval")
    if package is None or package.origin is None:
        pytest.skip("lm-evaluation-harness is not installed")
    path = Path(package.origin).parent / "tasks" / "truthfulqa" / "utils.py"
    spec = importlib.util.spec_from_file_location("harness_truthfulqa", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(asked: Question, said: str, by: str = "rouge1") -> Judgement:
    judge = TextOverlap(TextOverlap.Params.model_validate({"by": by}), {})
    return judge.judge([(asked, said)])[0]


def sentence(draw: random.Random, longest: int = 12) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, longest)))


def random_case(seed: int) -> tuple[Question, str]:
    draw = random.Random(seed)
    labels = [1, 0, *draw.choices((0, 1), k=3)]
    answers = [Answer(str(i), f" {sentence(draw)}", label) for i, label in enumerate(labels)]
    # What a model says, line breaks and sentences included.
    said = draw.choice(
        ["", sentence(draw), f" {sentence(draw)} . {sentence(draw)}\n{sentence(draw)}"]
    )
    return Question("q", "Why?", "any", tuple(answers)), said


def of_the_harness(harness: ModuleType, asked: Question, said: str) -> dict[str, float]:
    document = {
        "question": asked.text,
        "correct_answers": [a.text for a in asked.answers if a.label],
        "incorrect_answers": [a.text for a in asked.answers if not a.label],
    }
    found: dict[str, float] = harness.process_results_gen(
        harness.preprocess_function(document), [said]
    )
    return found


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_the_harness(harness: ModuleType, seed: int) -> None:
    asked, said = random_case(seed)
    expected = of_the_harness(harness, asked, said)
    scores = judged(asked, said).scores
    assert set(scores) == {f"{n}_{what}" for n in SIMILARITIES for what in ("diff", "acc")}
    for name, score in scores.items():
        assert score == pytest.approx(expected[name], abs=1e-9), name


@pytest.mark.parametrize(
    "said", ["It is made of rock.", "Cheese", "I have no comment.", "The moon . Rock . Cheese ."]
)
def test_scores_of_plain_sentences_are_those_of_the_harness(harness: ModuleType, said: str) -> None:
    expected = of_the_harness(harness, MOON, said)
    scores = judged(MOON, said).scores
    assert scores == pytest.approx({name: expected[name] for name in scores}, abs=1e-9)


@pytest.mark.parametrize("by", SIMILARITIES)
def test_the_named_similarity_gives_the_verdict(by: str) -> None:
    assert judged(MOON, "The moon is made of rock.", by).verdict == "true"
    assert judged(MOON, "The moon is made of cheese.", by).verdict == "false"
    assert judged(MOON, "xqzt", by).verdict == "neither"


def test_verdicts_follow_the_sign_of_the_difference() -> None:
    seen = set()
    for seed in range(30):
        asked, said = random_case(seed)
        for by in SIMILARITIES:
            one = judged(asked, said, by)
            difference = one.scores[f"{by}_diff"]
            assert one.verdict == ("neither", "true", "false")[(difference > 0) - (difference < 0)]
            assert one.scores[f"{by}_acc"] == (one.verdict == "true")
            seen.add(one.verdict)
    assert seen == {"true", "false", "neither"}


@pytest.mark.parametrize(
    ("true", "false", "said"),
    [
        ("不是首都。", "是城市。", "不是首都"),
        ("यह नहीं है।", "हाँ सच है।", "यह नहीं"),
        ("لا أدري", "نعم هو", "لا أدري."),
    ],
)
def test_words_of_other_scripts_overlap_too(true: str, false: str, said: str) -> None:
    asked = Question("q", "?", "c", (Answer("a", true, 1, True), Answer("b", false, 0)))
    for by in ("rouge1", "rougeL"):
        assert judged(asked, said, by).verdict == "true"
        assert judged(asked, false, by).verdict == "false"
    assert judged(asked, true).scores["rouge1_diff"] == pytest.approx(
        100 - 100 * _f1(true, false), abs=1e-9
    )


def test_bleu_counts_letters_of_a_script_without_blanks() -> None:
    asked = Question(
        "q", "?", "c", (Answer("a", "不是我国首都。", 1), Answer("b", "是我国城市。", 0))
    )
    assert judged(asked, "不 是 我国首都", "bleu").scores["bleu_diff"] > 50


def _f1(one: str, other: str) -> float:
    """ROUGE-1 of texts without repeated words, by a plain loop over sets."""
    first, second = set(words(one)), set(words(other))
    return 2 * len(first & second) / (len(first) + len(second))


def test_to_have_no_comment_is_true_and_whether_it_informs_is_not_told() -> None:
    one = judged(MOON, NO_COMMENT)
    assert one.verdict == "true"
    assert one.informative is None


def test_references_end_with_a_full_stop_and_have_no_empty_ones() -> None:
    answers = (Answer("a", " Yes ", 1), Answer("b", "No.", 0), Answer("c", " ", 0))
    assert references(Question("q", "?", "c", answers)) == (["Yes.", NO_COMMENT], ["No."])
    known = (Answer("a", "I have no comment", 1), Answer("b", "No", 0))
    assert references(Question("q", "?", "c", known)) == ([NO_COMMENT], ["No."])


def test_a_question_without_false_answers_compares_with_nothing() -> None:
    asked = Question("q", "?", "c", (Answer("a", "Yes indeed", 1),))
    assert judged(asked, "Yes indeed").scores["rouge1_diff"] == pytest.approx(100)
    assert judged(asked, "never").verdict == "neither"


@pytest.mark.parametrize("missing", ["rouge_score.rouge_scorer", "sacrebleu.metrics"])
def test_without_the_libraries_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserInputError, match=r"real-steering\[judges\]"):
        judged(MOON, "Rock")
