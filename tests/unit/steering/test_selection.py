import math

import pytest

from real_tasks.steering.selection import ranked, select
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId, ModuleScore


def head(layer: int, index: int, score: float) -> ModuleScore:
    return ModuleScore(ModuleId("head", layer, index), score)


SCORES = [head(1, 1, 0.6), head(0, 1, 0.8), head(1, 0, 0.8), head(0, 0, 0.7)]


def test_modules_are_ranked_by_score_and_ties_by_layer_then_head() -> None:
    places = [(score.module.layer, score.module.head) for score in ranked(SCORES)]
    assert places == [(0, 1), (1, 0), (0, 0), (1, 1)]
    equal = [head(layer, index, 0.5) for layer in (10, 2) for index in (11, 3)]
    order = [(score.module.layer, score.module.head) for score in ranked(equal)]
    assert order == [(2, 3), (2, 11), (10, 3), (10, 11)]


def test_the_order_in_which_scores_come_does_not_matter() -> None:
    assert ranked(SCORES) == ranked(SCORES[::-1])


def test_strengths_are_scores_over_the_largest_selected_score() -> None:
    chosen = select(SCORES, 3, "score")
    assert [item.rank for item in chosen] == [1, 2, 3]
    assert [item.score for item in chosen] == [0.8, 0.8, 0.7]
    assert [item.strength for item in chosen] == pytest.approx([1.0, 1.0, 0.875])


def test_equal_weighting_gives_every_selected_module_the_strength_one() -> None:
    chosen = select(SCORES, 4, "equal")
    assert [item.strength for item in chosen] == [1.0] * 4
    assert [item.module for item in chosen] == [score.module for score in ranked(SCORES)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_an_error_that_names_the_module(bad: float) -> None:
    with pytest.raises(UserInputError, match="layer=3.*head=2.*expected a number"):
        select([*SCORES, head(3, 2, bad)], 1, "score")


def test_more_modules_than_there_are_is_an_error_that_names_the_mend() -> None:
    with pytest.raises(UserInputError, match="top_k is 5.*has 4 modules.*evaluation.top_k"):
        select(SCORES, 5, "score")
    assert len(select(SCORES, 4, "score")) == 4
