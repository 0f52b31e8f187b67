import numpy as np
import pytest

from real_tasks.questions.folds import fold_of_questions, split
from real_tasks.vocabulary.config import DataConfig


def folds_by_hand(n_questions: int, n_folds: int) -> list[int]:
    """The first ``n_questions % n_folds`` folds get one question more; order is kept."""
    folds: list[int] = []
    for fold in range(n_folds):
        size = n_questions // n_folds + (1 if fold < n_questions % n_folds else 0)
        folds += [fold] * size
    return folds


@pytest.mark.parametrize(("n_questions", "n_folds"), [(10, 2), (11, 2), (17, 5), (5, 5), (180, 3)])
def test_folds_are_contiguous_parts_in_question_order(n_questions: int, n_folds: int) -> None:
    assert fold_of_questions(n_questions, n_folds) == folds_by_hand(n_questions, n_folds)


@pytest.mark.parametrize(("n_questions", "n_folds"), [(8, 2), (31, 3), (90, 2)])
def test_the_parts_are_disjoint_and_together_all_questions(n_questions: int, n_folds: int) -> None:
    for fold in range(n_folds):
        parts = split(n_questions, fold, DataConfig(n_folds=n_folds))
        together = [*parts.train, *parts.validation, *parts.test]
        assert sorted(together) == list(range(n_questions))
        assert parts.train and parts.validation and parts.test


def test_every_question_is_a_test_question_of_exactly_one_fold() -> None:
    config = DataConfig(n_folds=4)
    tested = [question for fold in range(4) for question in split(22, fold, config).test]
    assert sorted(tested) == list(range(22))
    assert list(split(22, 1, config).test) == [
        question for question, fold in enumerate(folds_by_hand(22, 4)) if fold == 1
    ]


@pytest.mark.parametrize(("share", "expected"), [(0.2, 10), (0.34, 17), (0.5, 25)])
def test_validation_questions_are_their_share_of_what_is_not_tested(
    share: float, expected: int
) -> None:
    parts = split(100, 0, DataConfig(validation_share=share))
    assert len(parts.validation) == expected
    assert len(parts.train) == 50 - expected


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_an_extreme_share_leaves_a_question_on_either_side(share: float) -> None:
    parts = split(8, 0, DataConfig(validation_share=share))
    assert min(len(parts.train), len(parts.validation)) == 1


def test_validation_questions_are_the_last_of_the_published_permutation() -> None:
    parts = split(20, 0, DataConfig(validation_share=0.2, split_seed=42))
    order = np.random.default_rng(42).permutation(np.arange(10, 20))
    assert parts.validation == tuple(sorted(int(question) for question in order[-2:]))


def test_the_seed_changes_the_validation_questions_only() -> None:
    one, other = (split(60, 0, DataConfig(split_seed=seed)) for seed in (1, 2))
    assert one == split(60, 0, DataConfig(split_seed=1))
    assert one.test == other.test
    assert one.validation != other.validation


def test_numpys_global_random_state_has_no_say() -> None:
    np.random.seed(0)
    first = split(60, 1, DataConfig())
    np.random.seed(1)
    assert split(60, 1, DataConfig()) == first
