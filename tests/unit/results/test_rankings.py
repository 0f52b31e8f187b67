import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from real_tasks.results.comparing.published import read_rankings, rows_of_model
from real_tasks.results.comparing.with_published import (
    compare_rankings,
    comparison_sentences,
    head_table,
    run_agreement,
)
from real_tasks.results.scores import scores_by_run
from real_tasks.vocabulary.errors import UserInputError

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = (
    Path(os.environ.get("REAL_SHARED", ROOT.parent / "shared"))
    / "data"
    / "reference_rankings"
    / "head_scores.csv"
)
HEADER = "model,fold,seed,layer,head,roc_auc\n"


def truth(n_layers: int = 4, n_heads: int = 5) -> np.ndarray:
    return np.random.default_rng(9).uniform(0.4, 0.9, (n_layers, n_heads))


def rows(noise: float, folds: int = 2, seeds: int = 1, **other: Any) -> list[dict[str, Any]]:
    """Scores of heads that follow one planted order, but for noise."""
    found = []
    for fold in range(folds):
        for seed in range(seeds):
            rng = np.random.default_rng((fold, seed, int(1000 * noise)))
            for (layer, head), score in np.ndenumerate(truth()):
                value = float(score + noise * rng.normal())
                row = {"fold": fold, "seed": seed, "layer": layer, "head": head, "roc_auc": value}
                found.append(row | {"score": value} | other)
    return found


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "published.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def matrix(found: list[dict[str, Any]]) -> np.ndarray:
    """Means over folds and seeds, head by head, in a plain loop."""
    cells: dict[tuple[int, int], list[float]] = {}
    for row in found:
        cells.setdefault((row["layer"], row["head"]), []).append(row["roc_auc"])
    return np.array([np.mean(cells[place]) for place in sorted(cells)])


def test_averages_are_compared_as_scipy_does() -> None:
    theirs, ours = rows(0.05), rows(0.2, seeds=3)
    found = compare_rankings(theirs, ours, top_k=6, n_resamples=100)
    means = matrix(theirs), matrix(ours)
    assert found.mean.spearman == pytest.approx(spearmanr(*means).statistic)
    assert found.mean.pearson == pytest.approx(pearsonr(*means).statistic)
    best = [set(np.argsort(-one)[:6].tolist()) for one in means]
    assert found.mean.shared == len(best[0] & best[1])
    assert found.mean.by_chance == pytest.approx(36 / 20)
    assert found.mean.low <= found.mean.spearman <= found.mean.high
    assert (found.n_layers, found.n_heads, found.column) == (4, 5, "roc_auc")


def test_every_published_fold_is_compared_with_every_one_of_ours_and_each_with_its_own() -> None:
    theirs, ours = rows(0.05), rows(0.2, seeds=3)
    found = compare_rankings(theirs, ours, top_k=6, n_resamples=0)
    assert len(found.runs) == 2 * 6
    assert len(found.published_runs) == 1 and len(found.own_runs) == 6 * 5 // 2
    pair = found.runs[(1, 0), (0, 2)]
    left = [row["roc_auc"] for row in theirs if row["fold"] == 1]
    right = [row["roc_auc"] for row in ours if (row["fold"], row["seed"]) == (0, 2)]
    assert pair.spearman == pytest.approx(spearmanr(left, right).statistic)


def test_heads_have_their_scores_and_places_in_both() -> None:
    theirs, ours = rows(0.05), rows(0.2)
    found = compare_rankings(theirs, ours, top_k=6, n_resamples=0)
    means = matrix(theirs), matrix(ours)
    assert [row.published_rank for row in found.heads] == list(range(1, 21))
    for row in found.heads:
        place = row.layer * 5 + row.head
        assert (row.published, row.ours) == (
            pytest.approx(means[0][place]),
            pytest.approx(means[1][place]),
        )
        assert row.our_rank == 1 + int((means[1] > means[1][place]).sum())
    headers, lines = head_table(found, 3)
    assert headers[-2:] == ["published rank", "our rank"]
    assert all(min(int(line[-2]), int(line[-1])) <= 3 for line in lines)
    assert 3 <= len(lines) <= 6 and all(len(line) == len(headers) for line in lines)


def test_the_planted_order_is_found_again_and_a_turned_one_is_its_opposite() -> None:
    same = compare_rankings(rows(0.0), rows(0.0), top_k=5, n_resamples=50)
    assert (same.mean.spearman, same.mean.shared) == (pytest.approx(1.0), 5)
    turned = [row | {"roc_auc": 1 - row["roc_auc"]} for row in rows(0.0)]
    opposite = compare_rankings(rows(0.0), turned, top_k=5, n_resamples=50)
    assert (opposite.mean.spearman, opposite.mean.shared) == (pytest.approx(-1.0), 0)


def test_scores_without_an_auc_are_compared_as_they_are() -> None:
    ours = [row | {"roc_auc": None, "score": 10 * row["score"]} for row in rows(0.0)]
    found = compare_rankings(rows(0.0), ours, top_k=5, n_resamples=0)
    assert found.column == "score" and found.mean.spearman == pytest.approx(1.0)


def test_a_model_of_another_shape_is_refused_with_both_shapes() -> None:
    fewer = [row for row in rows(0.0) if row["head"] < 3]
    with pytest.raises(UserInputError, match="of 4 layers of 5 heads, .* has 4 layers of 3 heads"):
        compare_rankings(rows(0.0), fewer, top_k=5)


def test_a_run_that_scores_layers_is_refused() -> None:
    layers = [row | {"module_kind": "layer", "head": None} for row in rows(0.0)]
    with pytest.raises(UserInputError, match="no scores of attention heads"):
        compare_rankings(rows(0.0), layers, top_k=5)


def test_the_sentences_have_the_numbers() -> None:
    found = compare_rankings(rows(0.05), rows(0.2, seeds=2), top_k=6, n_resamples=50)
    text = " ".join(comparison_sentences(found))
    assert f"(Spearman) of {found.mean.spearman:.2f} [{found.mean.low:.2f}" in text
    assert f"Of the best 6 of each, {found.mean.shared} are the same (by chance: 1.8)" in text
    assert "Two published folds: Spearman" in text and "over 6 pairs" in text
    lone = compare_rankings(rows(0.05, folds=1), rows(0.2, folds=1), top_k=6, n_resamples=50)
    assert "Two published folds" not in " ".join(comparison_sentences(lone))


def test_a_file_is_read_back_with_other_columns_left_out(tmp_path: Path) -> None:
    text = "note,model,fold,seed,layer,head,roc_auc\nx,A,0,42,1,2,0.75\n,B,1,42,0,0,0.5\n"
    found = read_rankings(written(tmp_path, "\ufeff" + text))
    assert [(row["model"], row["fold"], row["layer"], row["head"]) for row in found] == [
        ("A", 0, 1, 2),
        ("B", 1, 0, 0),
    ]
    assert found[0]["roc_auc"] == 0.75 and found[1]["seed"] == 42


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no column model, fold.*found nothing"),
        (b"model,fold,seed,layer,head,auc\n", "no column roc_auc; found model, .*auc, expected"),
        (HEADER.encode(), "no rows"),
        (HEADER.encode() + b"A,0,42,0,0,0.5\nA,0,42,0,x,0.5\n", "line 3: .*'x'.*whole numbers"),
        (HEADER.encode() + b"A,0,42,0,0\n", "line 2: .*expected whole numbers"),
        (HEADER.encode() + b"A,0,42,0,0,1.5\n", "line 2: .*roc_auc 1.5; expected .* 0 to 1"),
        (HEADER.encode() + b"A,0,42,0,0,nan\n", "line 2: .*roc_auc nan"),
        (HEADER.encode() + b"A,0,42,-1,0,0.5\n", "line 2: layer -1.*expected layers and heads"),
        (HEADER.encode() + b"A,0,42,0,0,0.5\nA,0,42,0,0,0.6\n", "line 3: the same .* as in line 2"),
        (HEADER.encode() + b"\xff\xfe,0,42,0,0,0.5\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_what(
    tmp_path: Path, text: bytes, message: str
) -> None:
    with pytest.raises(UserInputError, match=message):
        read_rankings(written(tmp_path, text))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"nowhere\.csv: cannot be read"):
        read_rankings(tmp_path / "nowhere.csv")


def test_the_model_is_the_one_named_or_the_only_one_or_the_run_s_own() -> None:
    several = [{"model": "Llama"}, {"model": "Qwen"}, {"model": "Llama"}]
    assert len(rows_of_model(several, "Llama", "other")) == 2
    assert len(rows_of_model(several, None, "llama")) == 2
    assert len(rows_of_model(several[1:2], None, "other")) == 1
    with pytest.raises(UserInputError, match="none is called 'other': Llama, Qwen; .*--model"):
        rows_of_model(several, None, "other")
    with pytest.raises(UserInputError, match="no model 'Phi'; it has Llama, Qwen"):
        rows_of_model(several, "Phi", "Llama")


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the published rankings are not here")
def test_two_published_folds_agree_no_better_than_the_method_s_page_says() -> None:
    """Section 8.8: Spearman 0.22 (llama2_7B) to 0.62 (Qwen2.5-7B-Instruct), 18 to 28 of 48."""
    published = read_rankings(REFERENCE)
    found = {}
    for model in {row["model"] for row in published}:
        runs = scores_by_run(rows_of_model(published, model, ""), column="roc_auc")
        (found[model],) = run_agreement(runs, 48, n_resamples=200).values()
    assert round(found["llama2_7B"].spearman, 2) == 0.22
    assert round(found["Qwen2.5-7B-Instruct"].spearman, 2) == 0.62
    lowest = min(found.values(), key=lambda one: one.spearman)
    highest = max(found.values(), key=lambda one: one.spearman)
    assert lowest is found["llama2_7B"] and highest is found["Qwen2.5-7B-Instruct"]
    shared = [one.shared for one in found.values()]
    assert (min(shared), max(shared)) == (18, 28)
    assert all(one.top_k == 48 for one in found.values())
