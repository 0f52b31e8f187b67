"""The leaderboard: who comes first, from which side a difference is told, what is out of reach."""

from typing import Any

from real_tasks.results.leaderboard import leaderboard, leaderboard_cells, short
from tests.unit.synthetic_results import comparison

RESULTS = [
    {"method": "unsteered", "n": 2, "top_k": None, "alpha": None, "mc1": 0.4, "kl": 0.0},
    {"method": "real", "n": 2, "top_k": 8.5, "alpha": 3.0, "mc1": 0.9, "kl": 0.012},
    {"method": "iti", "n": 2, "top_k": 8.0, "alpha": 3.2, "mc1": 0.8, "kl": 0.03},
    {"method": "cast", "n": 2, "top_k": 1.0, "alpha": 4.0, "mc1": 0.95, "kl": 0.001},
    {"method": "random", "n": 2, "top_k": 8.0, "alpha": 2.0, "mc1": 0.3, "kl": 0.02},
]
COMPARISONS = [
    comparison("unsteered", 0.5, 0.1),
    comparison("iti", -0.1, 0.05),
    comparison("random", 0.7, 0.1),
    comparison("unsteered", 0.6, 0.1, method="iti"),
    comparison("unsteered", -0.2, 0.1, method="random"),
    comparison("unsteered", 0.9, 0.1, method="random", basis="tuned"),
    comparison("unsteered", 0.9, 0.1, method="random", metric="mc2"),
]
TIMES = {"fit_seconds": 75.0, "token_seconds": 0.03, "bare_token_seconds": 0.02, "bakes": False}


def methods() -> list[dict[str, Any]]:
    return [
        {"method": row["method"], "bounded": row["method"] == "cast"} | TIMES for row in RESULTS
    ]


def table() -> dict[str, dict[str, str]]:
    rows = leaderboard(RESULTS, COMPARISONS, methods(), "mc1")
    headers, lines = leaderboard_cells(rows, "mc1", "real")
    return {line[0]: dict(zip(headers, line, strict=True)) for line in lines}


def test_what_gains_most_at_equal_kl_comes_first_and_what_cannot_be_compared_last() -> None:
    rows = leaderboard(RESULTS, COMPARISONS, methods(), "mc1")
    assert [row["method"] for row in rows] == ["iti", "real", "unsteered", "random", "cast"]


def test_differences_are_told_from_the_method_s_own_side() -> None:
    lines = table()
    assert lines["ITI"]["MC1 − REAL"] == "+.10 [.05, .15]"
    assert lines["random modules"]["MC1 − REAL"] == "−.70 [−.80, −.60]"
    assert lines["random modules"]["MC1 − unsteered"] == "−.20 [−.30, −.10]"
    assert lines["REAL"]["MC1 − REAL"] == lines["unsteered"]["MC1 − unsteered"] == "–"


def test_what_costs_too_little_is_called_bounded_and_times_are_told() -> None:
    line = table()["CAST (behind a gate)"]
    assert line["MC1 − unsteered"] == line["MC1 − REAL"] == "bounded"
    assert [line[name] for name in ("MC1", "K", "alpha", "KL")] == [".95", "1", "4.00", ".001"]
    assert [line[name] for name in ("fit", "token", "bakes")] == ["1 min 15 s", "×1.50", "no"]


def test_numbers_lose_the_zero_before_the_point_alone() -> None:
    assert [short(text) for text in ("0.50", "-0.50", "10.0", "0", "+0.1")] == [
        *(".50", "-.50", "10.0", "0", "+.1")
    ]
