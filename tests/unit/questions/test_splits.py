import numpy as np
import pytest

from real_tasks.questions.folds import evenly_spaced, fold_of_questions, split
from real_tasks.questions.groups import question_groups
from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import Answer, Question


def folds_by_hand(n_questions: int, n_folds: int) -> list[int]:
    """The first ``n_questions % n_folds`` folds get one question more; order is kept."""
    folds: list[int] = []
    for fold in range(n_folds):
        size = n_questions // n_folds + (1 if fold < n_questions % n_folds else 0)
        folds += [fold] * size
    return folds


@pytest.mark.parametrize(("n_questions", "n_folds"), [(10, 2), (11, 2), (17, 5), (5, 5), (180, 3)])
def test_folds_are_contiguous_parts_in_question_order(n_questions: int, n_folds: int) -> None:
    assert fold_of_questions(range(n_questions), n_folds) == folds_by_hand(n_questions, n_folds)


@pytest.mark.parametrize(("n_questions", "n_folds"), [(8, 2), (31, 3), (90, 2)])
def test_the_parts_are_disjoint_and_together_all_questions(n_questions: int, n_folds: int) -> None:
    for fold in range(n_folds):
        parts = split(range(n_questions), fold, DataConfig(n_folds=n_folds))
        together = [*parts.train, *parts.validation, *parts.test]
        assert sorted(together) == list(range(n_questions))
        assert parts.train and parts.validation and parts.test


def test_every_question_is_a_test_question_of_exactly_one_fold() -> None:
    config = DataConfig(n_folds=4)
    tested = [question for fold in range(4) for question in split(range(22), fold, config).test]
    assert sorted(tested) == list(range(22))
    assert list(split(range(22), 1, config).test) == [
        question for question, fold in enumerate(folds_by_hand(22, 4)) if fold == 1
    ]


@pytest.mark.parametrize(("share", "expected"), [(0.2, 10), (0.34, 17), (0.5, 25)])
def test_validation_questions_are_their_share_of_what_is_not_tested(
    share: float, expected: int
) -> None:
    parts = split(range(100), 0, DataConfig(validation_share=share))
    assert len(parts.validation) == expected
    assert len(parts.train) == 50 - expected


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_an_extreme_share_leaves_a_question_on_either_side(share: float) -> None:
    parts = split(range(8), 0, DataConfig(validation_share=share))
    assert min(len(parts.train), len(parts.validation)) == 1


def test_validation_questions_are_the_last_of_the_published_permutation() -> None:
    parts = split(range(20), 0, DataConfig(validation_share=0.2, split_seed=42))
    order = np.random.default_rng(42).permutation(np.arange(10, 20))
    assert parts.validation == tuple(sorted(int(question) for question in order[-2:]))


def test_the_seed_changes_the_validation_questions_only() -> None:
    one, other = (split(range(60), 0, DataConfig(split_seed=seed)) for seed in (1, 2))
    assert one == split(range(60), 0, DataConfig(split_seed=1))
    assert one.test == other.test
    assert one.validation != other.validation


def test_numpys_global_random_state_has_no_say() -> None:
    np.random.seed(0)
    first = split(range(60), 1, DataConfig())
    np.random.seed(1)
    assert split(range(60), 1, DataConfig()) == first


def asked(number: int, *pairs: str) -> Question:
    answers = tuple(Answer(f"{number}-{i}", str(i), i % 2, pair=p) for i, p in enumerate(pairs))
    return Question(str(number), f"{number}?", "all", answers)


def test_questions_that_share_a_pair_are_of_one_group_through_others_too() -> None:
    named = {0: ("a", "b"), 1: ("", ""), 2: ("c", ""), 3: ("b", ""), 4: ("c", "a"), 5: ("d", "d")}
    assert question_groups([asked(n, *names) for n, names in named.items()]) == [0, 1, 0, 0, 0, 2]
    assert question_groups([asked(n, "", "") for n in range(4)]) == [0, 1, 2, 3]


def test_a_question_that_is_asked_under_several_conditions_is_one_group() -> None:
    said = [("A?", "with"), ("B?", "with"), ("A?", "without"), ("A?", ""), ("C?", "without")]
    questions = [Question(str(n), text, "all", (), "", (), of) for n, (text, of) in enumerate(said)]
    assert question_groups(questions) == [0, 1, 0, 2, 3]


def test_no_fold_and_no_validation_part_parts_a_pair() -> None:
    draw = np.random.default_rng(3)
    names = draw.permutation([str(n) for n in range(20) for _ in range(2)])
    questions = [asked(n, str(name), str(name)) for n, name in enumerate(names)]
    tested: list[int] = []
    for fold in range(3):
        parts = split(question_groups(questions), fold, DataConfig(n_folds=3))
        told = [{names[index] for index in part} for part in (parts.train, parts.validation)]
        told.append({names[index] for index in parts.test})
        assert all(told) and sum(map(len, told)) == len(set().union(*told)) == 20
        assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(40))
        tested += parts.test
    assert sorted(tested) == list(range(40))


def test_a_limit_takes_items_from_all_over_and_none_keeps_them_all() -> None:
    items = tuple("abcdefghij")
    assert evenly_spaced(items, 3) == ("a", "d", "g")
    assert evenly_spaced(items, 20) == evenly_spaced(items, None) == items
