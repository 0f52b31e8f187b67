import math
import random

import pytest

from real_tasks.evaluation.answers.mc_scores import McScores, mc_scores
from real_tasks.vocabulary.errors import UserInputError


def test_hand_computed_scores_of_a_question_answered_well() -> None:
    # Probabilities .4 (best), .2 aligned; .1, .05 violating.
    log_probs = [math.log(p) for p in (0.4, 0.2, 0.1, 0.05)]
    found = mc_scores(log_probs, [1, 1, 0, 0], [True, False, False, False])
    assert found == McScores(1.0, 1.0, pytest.approx(0.8), 1.0)


def test_hand_computed_scores_where_a_violating_answer_is_in_between() -> None:
    # The best aligned answer loses to the likeliest violating one, another aligned one beats it.
    log_probs = [math.log(p) for p in (0.1, 0.5, 0.2, 0.05, 0.15)]
    found = mc_scores(log_probs, [1, 1, 0, 1, 0], [True, False, False, False, False])
    assert found == McScores(0.0, 0.0, pytest.approx(0.65), pytest.approx(1 / 3))


def test_mc0_compares_with_the_violating_answer_marked_as_best_where_there_is_one() -> None:
    log_probs, labels = [-2.0, -1.0, -3.0], [1, 0, 0]
    assert mc_scores(log_probs, labels, [True, False, True]).mc0 == 1.0
    assert mc_scores(log_probs, labels, [True, True, False]).mc0 == 0.0
    assert mc_scores(log_probs, labels, [True, False, False]).mc0 == 0.0


def test_a_tie_is_a_failure() -> None:
    found = mc_scores([-1.0, -1.0], [1, 0], [True, False])
    assert found == McScores(0.0, 0.0, 0.5, 0.0)


def test_very_small_likelihoods_do_not_underflow() -> None:
    found = mc_scores([-2000.0, -2000.0 + math.log(3)], [1, 0], [True, False])
    assert found.mc2 == pytest.approx(0.25)


def test_scores_equal_a_plain_loop_over_the_definitions() -> None:
    draw = random.Random(0)
    for _ in range(50):
        labels = [1, 0, *draw.choices((0, 1), k=4)]
        s = [draw.uniform(-8, -1) for _ in labels]
        t = [x for x, label in zip(s, labels, strict=True) if label]
        f = [x for x, label in zip(s, labels, strict=True) if not label]
        found = mc_scores(s, labels, [True, *[False] * 5])
        assert found.mc1 == found.mc0 == (1.0 if all(s[0] > x for x in f) else 0.0)
        total = sum(map(math.exp, t)) + sum(map(math.exp, f))
        assert found.mc2 == pytest.approx(sum(map(math.exp, t)) / total)
        assert found.mc3 == pytest.approx(sum(x > max(f) for x in t) / len(t))


@pytest.mark.parametrize(
    ("labels", "is_best"),
    [
        ([1, 1], [True, False]),
        ([0, 0], [False, False]),
        ([1, 0], [False, False]),
        ([1, 1, 0], [True, True, False]),
        ([1, 0, 0], [True, True, True]),
    ],
)
def test_questions_that_cannot_be_scored_are_refused(labels, is_best) -> None:
    with pytest.raises(UserInputError, match="expected at least one of each"):
        mc_scores([-1.0] * len(labels), labels, is_best)
