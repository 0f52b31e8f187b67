"""What is said of grids of strengths that were too short."""

import re
from typing import Any

import pytest

from real_tasks.results.grids import grid_warnings


def of(chosen: float | None, kl: float, *tried: float, on_prompts: float = 0.0) -> dict[str, Any]:
    """An evaluation at one K, every setting of which costs the same."""
    rows = [
        {"top_k": 4, "alpha": alpha, "metrics": {"kl": kl, "kl_open": on_prompts}}
        for alpha in tried
    ]
    if chosen is None:
        rows.append({"top_k": None, "alpha": None, "metrics": {"kl": 0.0}})
    top_k = None if chosen is None else 4
    return {"top_k": top_k, "alpha": chosen, "fits_cap": chosen is not None, "validation": rows}


HALVED = of(0.25, 0.01, 1, 2, 0.5, 0.25)
NOTHING = of(None, 9.0, 1, 2, 0.5, 0.25)
AT_THE_END = of(2, 0.02, 1, 2)
INSIDE = of(1, 0.02, 1, 2)
GATED = of(2, 0.001, 1, 2, on_prompts=0.04)


@pytest.mark.parametrize(
    ("evaluations", "said"),
    [
        ([INSIDE, HALVED], "halves of the smallest were tried, down to 0.25; name smaller"),
        ([HALVED, NOTHING], "no strength, down to 0.25, .* nothing is steered there; raise"),
        ([AT_THE_END, AT_THE_END], "in every fold the largest strength of its grid, 2, .*larger"),
    ],
)
def test_a_grid_that_was_too_short_is_named_with_the_end_at_which_it_was(
    evaluations: list[dict[str, Any]], said: str
) -> None:
    (found,) = grid_warnings("mine", (1, 2), 10.0, 0.05, evaluations)
    assert found.startswith("mine: ")
    assert re.search(said, found), found


@pytest.mark.parametrize(
    "evaluations", [[INSIDE, INSIDE], [AT_THE_END, INSIDE], [of(2, 0.04, 1, 2)], [GATED], []]
)
def test_nothing_is_said_of_a_grid_that_reaches_far_enough(
    evaluations: list[dict[str, Any]],
) -> None:
    assert grid_warnings("mine", (1, 2), 10.0, 0.05, evaluations) == []


def test_nothing_is_said_where_larger_strengths_have_no_meaning_or_nothing_is_steered() -> None:
    assert grid_warnings("mine", (1, 2), 2.0, 0.05, [AT_THE_END]) == []
    assert grid_warnings("unsteered", (), 10.0, 0.05, [of(None, 0.0)]) == []
