import random

import numpy as np
import pytest

from real_tasks.evaluation.bootstrap import paired_difference


def percentile_by_hand(values: list[float], share: float) -> float:
    """Linear interpolation between the two nearest order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def values(n: int, mean: float, seed: int) -> dict[int, float]:
    draw = random.Random(seed)
    return {question: draw.gauss(mean, 0.5) for question in range(n)}


def test_the_interval_equals_a_plain_loop_over_the_same_resamples() -> None:
    ours, theirs = values(30, 0.2, 1), values(30, 0.0, 2)
    found = paired_difference([ours], [theirs], n_resamples=200)
    gaps = [ours[question] - theirs[question] for question in range(30)]
    draws = np.random.default_rng(0).integers(30, size=(200, 30))
    means = []
    for resample in draws:
        total = 0.0
        for question in resample:
            total += gaps[question]
        means.append(total / 30)
    assert found.difference == pytest.approx(sum(gaps) / 30)
    assert found.low == pytest.approx(percentile_by_hand(means, 0.025))
    assert found.high == pytest.approx(percentile_by_hand(means, 0.975))
    assert found.n_questions == 30


def test_the_interval_is_about_that_of_the_normal_approximation() -> None:
    ours, theirs = values(400, 0.0, 1), values(400, 0.0, 2)
    found = paired_difference([ours], [theirs], n_resamples=2000)
    gaps = [ours[question] - theirs[question] for question in range(400)]
    half = 1.96 * float(np.std(gaps)) / 400**0.5
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_a_planted_difference_is_found_and_its_interval_excludes_zero() -> None:
    theirs = values(100, 0.0, 3)
    ours = {question: value + 0.3 + 0.1 * (-1) ** question for question, value in theirs.items()}
    found = paired_difference([ours], [theirs], 500)
    assert found.difference == pytest.approx(0.3)
    assert 0.25 < found.low < 0.3 < found.high < 0.35
    back = paired_difference([theirs], [ours], 500)
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-found.difference, -found.high, -found.low)
    )


def test_a_method_does_not_differ_from_itself() -> None:
    runs = [values(20, 0.5, 1), values(20, 0.5, 2)]
    found = paired_difference(runs, runs, 100)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_questions_are_paired_by_their_index_not_by_their_place() -> None:
    ours = {3: 1.0, 1: 0.0, 2: 0.5}
    found = paired_difference([ours], [dict(sorted(ours.items()))], 50)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_only_questions_of_both_methods_count() -> None:
    found = paired_difference([{1: 1.0, 2: 1.0, 9: 100.0}], [{1: 0.0, 2: 0.0, 5: 100.0}], 50)
    assert (found.difference, found.n_questions) == (1.0, 2)


def test_seeds_are_averaged_within_a_question_so_that_more_of_them_do_not_narrow_it() -> None:
    ours, theirs = values(40, 0.2, 1), values(40, 0.0, 2)
    once = paired_difference([ours], [theirs], 300)
    ten_times = paired_difference([ours] * 10, [theirs], 300)
    assert (ten_times.low, ten_times.high) == pytest.approx((once.low, once.high))
    above = {question: value + 0.4 for question, value in ours.items()}
    mixed = paired_difference([ours, above], [theirs], 300)
    assert mixed.difference == pytest.approx(once.difference + 0.2)
    assert mixed.high - mixed.low == pytest.approx(once.high - once.low)


def test_folds_are_put_together() -> None:
    folds = [{0: 1.0, 1: 1.0}, {2: 1.0, 3: 0.0}]
    found = paired_difference(folds, [{0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}], 50)
    assert (found.difference, found.n_questions) == (0.75, 4)


def test_without_a_common_question_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="no test question in common"):
        paired_difference([{1: 1.0}], [{2: 1.0}], 10)
