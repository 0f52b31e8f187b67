import statistics

import pytest

from real_tasks.results.findings import comparison_table, headlines, outcome
from real_tasks.results.summary import at_tuned, markdown_table, result_table, wide_rows
from tests.unit.synthetic_results import comparison, curve_rows, evaluation_rows

TUNED = [row for row in curve_rows() if row["alpha"] == 1.2]


def test_a_result_table_has_the_mean_and_sample_sd_over_folds_and_seeds() -> None:
    table = result_table(evaluation_rows(TUNED))
    real = next(row for row in table if row["method"] == "real")
    values = [row["mc1"] for row in TUNED if row["method"] == "real"]
    assert real["n"] == len(values) == 4
    assert real["mc1"] == pytest.approx(sum(values) / 4)
    assert real["mc1_sd"] == pytest.approx(statistics.stdev(values))
    assert (real["top_k"], real["alpha"], real["alpha_sd"]) == (4, 1.2, 0)


def test_methods_come_in_their_usual_order_and_the_unsteered_have_no_alpha() -> None:
    table = result_table(evaluation_rows(TUNED))
    assert [row["method"] for row in table] == ["unsteered", "real", "iti", "random"]
    assert table[0]["alpha"] is None and table[0]["top_k"] is None and table[0]["n"] == 2


def test_other_splits_do_not_enter_the_table() -> None:
    rows = evaluation_rows(TUNED) + evaluation_rows(curve_rows(), split="validation")
    assert result_table(rows) == result_table(evaluation_rows(TUNED))


def test_several_settings_of_a_method_are_refused() -> None:
    with pytest.raises(ValueError, match="several settings of 'real'"):
        result_table(evaluation_rows(curve_rows()))


def test_rows_of_two_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="there twice"):
        wide_rows(evaluation_rows(TUNED) * 2)


def test_wide_rows_give_back_what_long_rows_say() -> None:
    wide = [row for row in wide_rows(evaluation_rows(TUNED)) if row["method"] != "unsteered"]
    assert [row | {"split": "validation"} for row in wide] == TUNED


def test_rows_at_the_tuned_k_are_a_curve_and_at_the_tuned_alpha_a_point() -> None:
    grid = [row | {"top_k": k} for row in curve_rows() for k in (4, 8)]
    tuned = [row | {"split": "test"} for row in TUNED]
    assert at_tuned(grid, tuned) == curve_rows()
    assert at_tuned(grid, tuned, ("top_k", "alpha")) == TUNED


def test_the_markdown_table_has_as_many_cells_in_every_line() -> None:
    lines = markdown_table(result_table(evaluation_rows(TUNED))).splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| unsteered | – | – | 0.000 (0.000) | 0.40 (0.00)")
    assert "| 1.20 (0.00) |" in lines[3] and "KL [nats/token]" in lines[0]


def test_a_table_without_rows_says_so() -> None:
    assert markdown_table([]) == "no results\n"


@pytest.mark.parametrize(
    ("difference", "metric", "expected"),
    [
        (0.01, "mc1", "tie"),
        (0.05, "mc1", "ahead"),
        (-0.05, "mc1", "behind"),
        (0.05, "kl", "behind"),
        (-0.05, "false_share", "ahead"),
        (-0.05, "perplexity", "ahead"),
        (0.05, "neither_share", "more"),
        (-0.05, "generation_tokens", "less"),
        (0.01, "refusals", "tie"),
        (0.02, "mc1", "tie"),
    ],
)
def test_an_interval_that_includes_zero_is_a_tie(
    difference: float, metric: str, expected: str
) -> None:
    assert outcome(comparison("iti", difference, 0.02, metric=metric)) == expected


def test_a_difference_without_an_interval_has_no_outcome() -> None:
    row = comparison("iti", 0.01, 0.02) | {"low": None, "high": None}
    assert outcome(row) == "unknown"
    assert "no interval" in headlines([], [row])[0]
    assert "nan" not in headlines([], [row | {"low": float("nan"), "high": 1.0}])[0]


def test_the_headline_says_tie_ahead_behind_or_mixed_as_the_intervals_do() -> None:
    def sentence(*rows: dict[str, object]) -> str:
        (only,) = headlines([], rows)
        return only

    tie = comparison("iti", 0.01, 0.02)
    assert sentence(tie) == "At equal KL, REAL and ITI tie: MC1 +0.010 [−0.010, +0.030]."
    assert "REAL is ahead of ITI" in sentence(comparison("iti", 0.1, 0.02))
    assert "REAL is behind ITI" in sentence(comparison("iti", -0.1, 0.02))
    more = sentence(comparison("iti", 0.1, 0.02, metric="context_share"))
    assert "REAL has more than ITI: answers from the context +0.100" in more
    mixed = sentence(tie, comparison("iti", 0.1, 0.02, metric="mc2"))
    assert "mixed" in mixed and "(tie)" in mixed and "(ahead)" in mixed


def test_the_headline_prefers_equal_kl_but_not_against_the_unsteered() -> None:
    rows = [
        comparison(baseline, 0.1, 0.02, basis=basis)
        for baseline in ("unsteered", "iti")
        for basis in ("tuned", "matched_kl")
    ]
    unsteered, iti = headlines([], rows)
    assert unsteered.startswith("Each at its tuned setting") and iti.startswith("At equal KL")


def test_the_headline_gives_the_means_of_the_table() -> None:
    results = result_table(evaluation_rows(TUNED))
    first = headlines(results, [])[0]
    real = results[1]
    assert f"MC1 from 0.40 to {real['mc1']:.2f}" in first
    assert f"KL of {real['kl']:.3f} nats/token" in first


def test_comparisons_are_one_row_a_pair_and_basis_with_a_column_a_metric() -> None:
    rows = [comparison("iti", 0.01, 0.02), comparison("iti", 0.1, 0.02, metric="mc2")]
    rows.append(comparison("random", 0.3, 0.02, metric="mc2"))
    headers, lines = comparison_table(rows)
    assert headers == ["difference", "basis", "MC1", "MC2"]
    assert lines[0][2:] == ["+0.010 tie\n[−0.010, +0.030]", "+0.100 ahead\n[+0.080, +0.120]"]
    assert lines[1][2] == ""
