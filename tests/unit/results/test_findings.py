import math
import re

import numpy as np
import pytest
from scipy.stats import spearmanr

from real_tasks.results.comparing.agreement import localizer_agreement, usual_top_k
from real_tasks.results.findings import (
    causal_agreement,
    headlines,
    signed,
    transfer_sentences,
    wording,
)
from tests.unit.synthetic_results import score_rows


def rows_with_effects(noise: float, folds: int = 2) -> list[dict]:
    """REAL's scores, and effects of one seed that follow them but for noise."""
    rows = score_rows(6, 8, folds=folds)
    rng = np.random.default_rng(5)
    effects = [
        row | {"localizer": "causal", "score": row["score"] + noise * rng.normal()}
        for row in rows
        if row["localizer"] == "real" and row["seed"] == 0
    ]
    return rows + effects


def test_the_sentence_has_the_numbers_of_the_comparison() -> None:
    rows = rows_with_effects(0.1)
    found = localizer_agreement(rows, ("real", "causal"), 12)
    assert found is not None
    means = [list(scores.values()) for scores in (found.first, found.second)]
    sentence = causal_agreement(rows)
    assert sentence is not None
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", sentence)]
    within = [run.spearman for run in found.runs.values()]
    expected = [
        spearmanr(*means).statistic,
        found.mean.low,
        found.mean.high,
        min(within),
        max(within),
    ]
    assert numbers[:5] == pytest.approx(expected, abs=0.005)
    assert "over 48 heads" in sentence and "REAL's scores" in sentence
    assert f"best 12 of each, {found.mean.shared} are the same (by chance: 3.0)" in sentence


def test_a_single_run_has_no_range_and_minus_is_a_true_minus() -> None:
    rows = [row for row in rows_with_effects(0.0, folds=1) if row["seed"] == 0]
    for row in rows:
        row["score"] = -row["score"] if row["localizer"] == "causal" else row["score"]
    sentence = causal_agreement(rows)
    assert sentence is not None
    assert "of −1.00 [−1.00, −1.00]; of" in sentence and "within" not in sentence


def test_without_effects_or_without_a_ranking_there_is_no_sentence() -> None:
    rows = rows_with_effects(0.1)
    assert causal_agreement(score_rows(6, 8)) is None
    assert causal_agreement(rows, "causal") is None
    flat = [row | ({"score": 0.0} if row["localizer"] == "causal" else {}) for row in rows]
    assert causal_agreement(flat) is None
    found = localizer_agreement(flat, ("real", "causal"))
    assert found is not None and math.isnan(found.mean.spearman)


def test_layers_are_called_layers() -> None:
    rows = [
        {**names, "layer": layer, "head": None, "fold": 0, "seed": 0, "score": float(layer)}
        for layer in range(5)
        for names in (
            {"localizer": "real", "module_kind": "layer"},
            {"localizer": "causal", "module_kind": "layer"},
            {"localizer": "causal", "module_kind": "head"},
        )
    ]
    assert "over 5 layers" in str(causal_agreement(rows))


def test_what_words_tell_stands_beside_what_modules_tell() -> None:
    modules = [
        {
            "localizer": name,
            "module_kind": "head",
            "layer": 0,
            "head": head,
            "fold": fold,
            "seed": 0,
        }
        | {"roc_auc": auc + fold / 10}
        for name, aucs in (("real", (0.5, 0.7)), ("iti", (0.9, 0.9)))
        for head, auc in enumerate(aucs)
        for fold in (0, 1)
    ]
    told = [("validation", 0.4), ("validation", 0.6), ("test", 0.52), ("test", 0.54)]
    texts = [{"split": split, "roc_auc": auc} for split, auc in told]
    said = str(wording(texts, modules))
    assert "AUC of 0.50 on validation and 0.53 on test questions" in said
    assert "The heads, by REAL, have held-out AUCs of 0.65 on average and 0.75 at best." in said
    assert wording([], modules) is None and wording(texts, modules, "random") is None


def test_the_usual_k_is_the_papers_or_a_quarter() -> None:
    assert [usual_top_k(n) for n in (1024, 192, 64, 3)] == [48, 48, 16, 1]


def transferred(source: str, target: str, gain: float) -> dict:
    return {
        "source": source,
        "target": target,
        "metric": "mc1",
        "gain": gain,
        "low": gain - 0.1,
        "high": gain + 0.1,
    }


def test_transfer_is_told_apart_from_a_behaviour_on_itself_and_clear_from_unclear() -> None:
    rows = [
        transferred("a", "a", 0.5),
        transferred("b", "b", 0.3),
        transferred("a", "b", 0.05),
        transferred("b", "a", -0.2),
    ]
    own, other = transfer_sentences(rows)
    assert own == (
        "MC1, on the behaviour itself: gains from +0.300 to +0.500; 2 of 2 clearly above 0, "
        "0 clearly below."
    )
    assert "gains from −0.200 to +0.050; 0 of 2 clearly above 0, 1 clearly below" in other


def test_a_single_transfer_is_told_with_its_interval() -> None:
    (sentence,) = transfer_sentences([transferred("a", "b", 0.5)])
    assert sentence == "MC1, on another behaviour: a gain of +0.500 [+0.400, +0.600]."


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.12, "+0.120"), (-0.0006, "−0.001"), (0.0003, "+0.0003"), (-0.0003, "−0.0003")]
    + [(0.00004, "0.000"), (-0.0, "0.000")],
)
def test_a_small_difference_does_not_look_like_none(value: float, shown: str) -> None:
    assert signed(value) == shown


def test_many_baselines_are_named_by_verdict_instead_of_a_sentence_each() -> None:
    def against(baseline: str, basis: str, *lows: float) -> list[dict]:
        names = {"method": "real", "baseline": baseline, "basis": basis}
        pairs = zip(("mc1", "mc2"), lows, strict=True)
        measured = ({"metric": name, "difference": low + 0.1, "low": low} for name, low in pairs)
        return [{**names, **one, "high": one["low"] + 0.2} for one in measured]

    rows = against("unsteered", "tuned", 0.3, 0.3) + against("iti", "matched_kl", -0.1, -0.1)
    for name in ("caa", "random"):
        rows += against(name, "matched_kl", 0.1, 0.1)
    rows += against("mine", "tuned", 0.1, -0.3)
    short = headlines([], rows)
    assert len(short) == 5 and any("MC1 +0.200 [+0.100, +0.300]" in said for said in short)
    for place in range(9):
        rows += against(f"other{place}", "tuned", -0.4, -0.3)
    unsteered, ahead, ties, behind, mixed = headlines([], rows)
    assert unsteered.startswith("Each at its tuned setting, REAL is ahead of unsteered: MC1 +0.400")
    assert ahead == "At equal KL, REAL is ahead of CAA (one layer) and random modules."
    assert ties == "At equal KL, REAL and ITI tie."
    assert behind.startswith("Each at its tuned setting, REAL is behind other0, other1,")
    assert behind.endswith("other7 and other8.")
    assert mixed == "Each at its tuned setting, REAL against mine is mixed."
