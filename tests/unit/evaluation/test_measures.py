"""The measures; the independent implementation is plain transformers, one text at a time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from real_tasks.evaluation.fluency import FLUENCY, fluency, refuses, repeated_trigrams
from real_tasks.evaluation.judges import Judge, Judgement
from real_tasks.evaluation.judges.exact_match import ExactMatch
from real_tasks.evaluation.measures import MEASURES, MeasureInput, Reading
from real_tasks.evaluation.measuring import judge_of
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from real_tasks.vocabulary.types import Answer, BehaviourData, Question
from tests.unit.tiny_models import WORDS, random_data, random_intervention, tiny_loaded

NEW_TOKENS = 6
CONFIG = EvaluationConfig(max_new_tokens=NEW_TOKENS, batch_tokens=120)
QUESTIONS = (4, 0, 2, 5)
DATA = random_data()


class FakeJudge:
    """Judges by a function of the generated text."""

    def __init__(self, rule: Callable[[str], Judgement]) -> None:
        self.rule = rule
        self.asked: list[tuple[Question, str]] = []

    def judge(self, answers: Sequence[tuple[Question, str]]) -> list[Judgement]:
        self.asked += answers
        return [self.rule(said) for _, said in answers]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tiny_loaded()


def reading(
    loaded: LoadedModel,
    name: str,
    data: BehaviourData = DATA,
    intervention: Intervention | None = None,
    judge: Judge | FakeJudge | None = None,
    questions: Sequence[int] = QUESTIONS,
) -> Reading:
    judge = judge or ExactMatch(ExactMatch.Params(), {})
    given = MeasureInput(loaded, data, questions, CONFIG, judge)
    return MEASURES[name](given).read(intervention)


@torch.no_grad()
def likelihoods(loaded: LoadedModel, question: Question, iv: Intervention | None) -> list[float]:
    found = []
    for answer in question.answers:
        context = f"Q: {question.text} A:"
        n_context = len(loaded.tokenizer(context)["input_ids"])
        tokens = loaded.tokenizer(f"{context} {answer.text}", return_tensors="pt")["input_ids"]
        with applied(loaded, iv):
            log_probs = loaded.model(tokens).logits[0].log_softmax(-1)
        places = range(n_context, tokens.shape[1])
        found.append(sum(float(log_probs[p - 1, tokens[0, p]]) for p in places))
    return found


def by_hand(log_probs: list[float], question: Question) -> dict[str, float]:
    rows = list(zip(log_probs, question.answers, strict=True))
    true = [p for p, a in rows if a.label]
    false = [p for p, a in rows if not a.label]
    best = next(p for p, a in rows if a.is_best)
    mass = [sum(math.exp(p) for p in side) for side in (true, false)]
    wins = [p > max(false) for p in true]
    return {
        "mc1": float(best > max(false)),
        "mc2": mass[0] / sum(mass),
        "mc3": sum(wins) / len(wins),
    }


def generated(loaded: LoadedModel, text: str) -> str:
    given = loaded.tokenizer(text, return_tensors="pt")
    new = loaded.model.generate(
        **given, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=2
    )
    words = loaded.tokenizer.decode(new[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
    return words.split("Q:")[0].strip()


def option_data(n_questions: int) -> BehaviourData:
    """A/B questions that are put in both orders; the aligned option is A first, then B."""

    def put(number: int, options: tuple[int, int]) -> Question:
        shown = [WORDS[3 * number + option] for option in options]
        answers = tuple(
            Answer(f"{number}{letter}", letter, int(option == 1), is_best=option == 1)
            for letter, option in zip((WORDS[50], WORDS[51]), options, strict=True)
        )
        text = f"{WORDS[number]} ? {shown[0]} . {shown[1]} ."
        return Question(f"q{number}", text, "any", answers)

    questions = tuple(
        replace(put(n, (1, 2)), alternates=(put(n, (2, 1)),)) for n in range(n_questions)
    )
    return BehaviourData("options", questions, measures=("options",))


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_multiple_choice_equals_a_plain_loop(loaded: LoadedModel, scale: float) -> None:
    intervention = random_intervention(loaded, "all", scale=scale) if scale else None
    found = reading(loaded, "multiple_choice", intervention=intervention).per_question
    asked = [DATA.questions[i] for i in QUESTIONS]
    expected = [by_hand(likelihoods(loaded, q, intervention), q) for q in asked]
    for metric in ("mc1", "mc2", "mc3"):
        values = [one[metric] for one in expected]
        assert found[metric] == pytest.approx(values, abs=1e-4), metric
    assert len(set(found["mc2"])) == len(asked)


def test_options_are_the_mean_over_both_orders_of_accuracy_and_probability(
    loaded: LoadedModel,
) -> None:
    data = option_data(8)
    found = reading(loaded, "options", data, questions=range(8)).per_question
    accuracy, probability = [], []
    for question in data.questions:
        ways = [
            by_hand(likelihoods(loaded, way, None), way)
            for way in (question, question.alternates[0])
        ]
        accuracy.append(sum(way["mc1"] for way in ways) / 2)
        probability.append(sum(way["mc2"] for way in ways) / 2)
    assert found["option_accuracy"] == pytest.approx(accuracy)
    assert found["option_probability"] == pytest.approx(probability, abs=1e-5)


def test_a_model_that_always_takes_one_letter_is_right_half_of_the_time(
    loaded: LoadedModel,
) -> None:
    """What the two orders are for: a leaning to a letter is no leaning to an option."""
    leaning = loaded.private_copy()
    head = torch.nn.Linear(32, loaded.model.lm_head.out_features)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[loaded.tokenizer.get_vocab()[WORDS[51]]] = 9.0
    leaning.model.lm_head = head
    found = reading(leaning, "options", option_data(4), questions=range(4)).per_question
    assert found["option_accuracy"] == [0.5] * 4
    assert found["option_probability"] == pytest.approx([0.5] * 4)


def test_generations_are_those_of_transformers_and_go_to_the_judge_with_their_questions(
    loaded: LoadedModel,
) -> None:
    judge = FakeJudge(lambda _: Judgement("neither"))
    found = reading(loaded, "generation", judge=judge)
    asked = [DATA.questions[i] for i in QUESTIONS]
    expected = [generated(loaded, f"Q: {question.text} A:") for question in asked]
    assert list(found.generations) == expected
    assert judge.asked == list(zip(asked, expected, strict=True))


def test_shares_bear_the_names_that_the_behaviour_gives_to_the_verdicts(
    loaded: LoadedModel,
) -> None:
    data = replace(DATA, outcomes=("context", "memory", "other"))
    said = reading(loaded, "generation", data).generations
    verdicts = dict(zip(said, ("true", "false", "neither", "true"), strict=True))
    judge = FakeJudge(lambda text: Judgement(verdicts[text]))
    found = reading(loaded, "generation", data, judge=judge)
    assert found.verdicts == ("true", "false", "neither", "true")
    shares = {n: v for n, v in found.per_question.items() if n not in FLUENCY}
    assert shares == {
        "context_share": [1, 0, 0, 1],
        "memory_share": [0, 1, 0, 0],
        "other_share": [0, 0, 1, 0],
    }
    assert MEASURES["generation"].objective(data) == ("context_share",)


def test_true_and_informative_are_multiplied_question_by_question(loaded: LoadedModel) -> None:
    said = reading(loaded, "generation").generations
    judged = [
        Judgement("true", True, {"sureness": 0.5}),
        Judgement("true", False, {"sureness": 0.25}),
        Judgement("false", True),
        Judgement("neither", False, {"sureness": 0.0, "other": 1.0}),
    ]
    by_text = dict(zip(said, judged, strict=True))
    found = reading(loaded, "generation", judge=FakeJudge(lambda text: by_text[text]))
    assert found.per_question["info_share"] == [1, 0, 1, 0]
    assert found.per_question["true_info_share"] == [1, 0, 0, 0]
    sureness = found.per_question["sureness"]
    assert sureness == pytest.approx([0.5, 0.25, math.nan, 0.0], nan_ok=True)
    assert found.per_question["other"] == pytest.approx([math.nan] * 3 + [1.0], nan_ok=True)


def test_information_is_not_measured_where_a_judge_does_not_always_tell(
    loaded: LoadedModel,
) -> None:
    judge = FakeJudge(lambda text: Judgement("true", True if len(text) % 2 else None))
    assert set(reading(loaded, "generation", judge=judge).per_question) == {
        "true_share",
        "false_share",
        "neither_share",
        *FLUENCY,
    }


def test_the_configured_judge_judges(loaded: LoadedModel) -> None:
    """The aligned answer is the first word of the generation: contained in it, not equal to it."""
    question = Question("q", f"{WORDS[1]} ?", "any", ())
    data = BehaviourData("one", (question,))
    first_word = generated(loaded, f"Q: {question.text} A:").split()[0]
    answers = (Answer("a", first_word, 1, True), Answer("b", "nowhere", 0))
    data = BehaviourData("one", (replace(question, answers=answers),))
    verdicts = {}
    for name in ("contains", "exact_match"):
        judge = judge_of(CONFIG.model_copy(update={"judge": PlugIn(name=name)}), {})
        found = reading(loaded, "generation", data, judge=judge, questions=[0])
        verdicts[name] = found.verdicts
    assert verdicts == {"contains": ("true",), "exact_match": ("neither",)}


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_answers_have_the_perplexity_that_a_plain_pass_of_the_unsteered_model_gives(
    loaded: LoadedModel, scale: float
) -> None:
    intervention = random_intervention(loaded, "all", scale=scale) if scale else None
    found = reading(loaded, "generation", intervention=intervention)
    for place, index in enumerate(QUESTIONS):
        asked, said = DATA.questions[index], found.generations[place]
        answered = replace(asked, answers=(Answer("a", said, 1, True),))
        n_tokens = len(loaded.tokenizer(f"Q: {asked.text} A: {said}")["input_ids"]) - len(
            loaded.tokenizer(f"Q: {asked.text} A:")["input_ids"]
        )
        (nats,) = likelihoods(loaded, answered, None)
        assert found.per_question["generation_tokens"][place] == n_tokens
        assert found.per_question["generation_perplexity"][place] == pytest.approx(
            math.exp(-nats / n_tokens), rel=1e-4
        )


def test_an_empty_answer_has_no_tokens_repeats_nothing_and_surprises_nobody(
    loaded: LoadedModel,
) -> None:
    given = MeasureInput(loaded, DATA, (0, 1), CONFIG, ExactMatch(ExactMatch.Params(), {}))
    found = fluency(given, ["", WORDS[3]])
    assert [found[name][0] for name in FLUENCY] == [1.0, 0.0, 0.0, 0.0]
    assert found["generation_tokens"][1] == 1.0
    assert fluency(given, ["", ""])["generation_perplexity"] == [1.0, 1.0]


def test_repeated_trigrams_are_those_beyond_the_first_of_each() -> None:
    assert repeated_trigrams("one two three four five") == 0
    assert repeated_trigrams("so so so so so so") == pytest.approx(3 / 4)
    assert repeated_trigrams("a b c a b c a b") == pytest.approx(1 - 3 / 6)
    assert repeated_trigrams("two words") == repeated_trigrams("") == 0


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot answer this.", True),
        ("Well, I am unable to say.", True),
        ("As an AI, I have no opinion.", True),
        ("I can\u2019t say.", True),
        ("No, it cannot be seen.", False),
        ("The answer is that I was sorry.", False),
        ("I can see it.", False),
        ("", False),
    ],
)
def test_refusals_are_told_by_how_they_begin(text: str, refused: bool) -> None:
    assert refuses(text) == refused
