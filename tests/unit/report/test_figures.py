from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from scipy.stats import spearmanr
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from real_tasks.localizers.labels import method_label
from real_tasks.report.figures.agreement import (
    correlation_matrix,
    rank_correlation,
    score_agreement,
)
from real_tasks.report.figures.codes import codebook_use, usage_shares
from real_tasks.report.figures.differences import difference_forest
from real_tasks.report.figures.effect_against_kl import effect_against_kl, effect_curve, spread_out
from real_tasks.report.figures.gallery import draw_gallery
from real_tasks.report.figures.gallery_data import CodebookCounts, GalleryData
from real_tasks.report.figures.grids import (
    extreme_modules,
    grid_shape,
    mean_map,
    score_maps,
    selection_maps,
)
from real_tasks.report.figures.heads import score_heatmap
from real_tasks.report.figures.latents import MAX_POINTS, embed, tsne_panels
from real_tasks.report.figures.selections import overlap_sentence, selection_map
from real_tasks.report.figures.style import png_bytes, thin_ticks
from real_tasks.vocabulary.methods.library import library
from tests.unit.synthetic_results import (
    UNSTEERED,
    comparison,
    curve_rows,
    planted_cloud,
    score_rows,
    selected_rows,
)

SCORES = score_rows(3, 4)
SELECTED = selected_rows(SCORES, 4)
SHAPE = (3, 4)


def dose_rows() -> list[dict[str, Any]]:
    return [row | {"dose": row["alpha"]} for row in curve_rows()]


def heatmap() -> Figure:
    mean = mean_map(score_maps(SCORES, "real", SHAPE))
    chosen = mean_map(selection_maps(SELECTED, "real", SHAPE))
    return score_heatmap(mean, label="ROC-AUC", title="scores", selected=chosen)


def large_heatmap() -> Figure:
    scores = np.random.default_rng(0).normal(0.6, 0.1, (80, 64))
    return score_heatmap(scores, label="ROC-AUC", title="scores", selected=scores > 0.8)


def selections() -> Figure:
    return selection_map(
        selection_maps(SELECTED, "real", SHAPE), selection_maps(SELECTED, "iti", SHAPE)
    )


def agreement() -> Figure:
    return score_agreement(
        score_maps(SCORES, "real", SHAPE), score_maps(SCORES, "iti", SHAPE, "score")
    )


def effects() -> Figure:
    tuned = [row for row in dose_rows() if row["alpha"] == 1.2]
    return effect_against_kl(
        dose_rows(), unsteered=UNSTEERED, max_kl=0.05, tuned=tuned, matched_kl=0.02
    )


def forest() -> Figure:
    return difference_forest([comparison("iti", 0.01, 0.02), comparison("random", 0.2, 0.02)])


def codes() -> Figure:
    counts = np.array([[5, 0, 1], [2, 2, 2], [9, 0, 0]])
    return codebook_use(
        counts, np.array([1.6, 3.0, 1.0]), np.array([False, False, True]), ["a", "b", "c"]
    )


def clouds() -> Figure:
    values, labels = planted_cloud(8, 4.0, 40, 0)
    return tsne_panels([embed(values, labels, title="L0H0")], title="t-SNE", samples="answers")


FIGURES = [heatmap, large_heatmap, selections, agreement, effects, forest, codes, clouds]


@pytest.mark.parametrize("draw", FIGURES)
def test_every_panel_is_labelled_and_the_figure_has_a_title(draw: Callable[[], Figure]) -> None:
    figure = draw()
    assert figure.get_suptitle()
    for axes in figure.axes:
        labels = (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left"))
        assert any(labels) or not axes.get_visible()
    first = figure.axes[0]
    assert first.get_xlabel() and first.get_ylabel()


@pytest.mark.parametrize("draw", FIGURES)
def test_pictures_change_no_global_setting_and_are_alike_in_every_thread(
    draw: Callable[[], Figure],
) -> None:
    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(3) as pool:
        pngs = list(pool.map(lambda _: png_bytes(draw()), range(3)))
    assert dict(matplotlib.rcParams) == before
    assert pngs[0].startswith(b"\x89PNG")
    assert len(set(pngs)) == 1


@pytest.mark.parametrize(("count", "most"), [(8, 16), (32, 16), (80, 16), (1024, 42), (1, 5)])
def test_ticks_thin_out_and_keep_even_steps_from_zero(count: int, most: int) -> None:
    ticks = thin_ticks(count, most)
    assert ticks[0] == 0 and ticks[-1] < count and len(ticks) <= most
    assert len(set(np.diff(ticks))) <= 1


def test_only_small_maps_have_numbers_in_their_cells() -> None:
    assert {text.get_text() for text in heatmap().axes[0].texts} >= {".90"}
    assert len(large_heatmap().axes[0].texts) == 0


def test_the_map_of_scores_is_white_at_chance_and_symmetric() -> None:
    image = heatmap().axes[0].images[0]
    low, high = image.get_clim()
    assert low + high == pytest.approx(1)
    assert image.to_rgba(np.array([0.5]))[0][:3] == pytest.approx((1, 1, 1), abs=0.05)


def test_absent_modules_stay_out_of_the_map() -> None:
    scores = np.array([[0.5, np.nan], [0.7, 0.6]])
    figure = score_heatmap(scores, label="ROC-AUC", title="scores")
    assert figure.axes[0].images[0].get_array().mask.tolist() == [[False, True], [False, False]]
    assert len(figure.axes[0].texts) == 3


def test_a_map_without_any_score_is_refused() -> None:
    with pytest.raises(ValueError, match="every score is NaN"):
        score_heatmap(np.full((2, 2), np.nan), label="x", title="y")
    with pytest.raises(ValueError, match="every score is NaN"):
        extreme_modules(np.full((2, 2), np.nan))


def test_the_mean_map_is_the_mean_over_the_runs_that_have_a_score() -> None:
    rows = score_rows(2, 3, folds=2, seeds=3)
    rows[0]["roc_auc"] = None
    mean = mean_map(score_maps(rows, "real", grid_shape(rows)))
    for layer in range(2):
        for head in range(3):
            values = [
                row["roc_auc"]
                for row in rows
                if (row["localizer"], row["layer"], row["head"]) == ("real", layer, head)
                and row["roc_auc"] is not None
            ]
            assert mean[layer, head] == pytest.approx(sum(values) / len(values))
    assert np.isnan(mean_map({(0, 0): np.array([[np.nan]])})).all()


def test_whole_layers_are_a_map_of_one_column() -> None:
    rows = [
        {"localizer": "real", "fold": 0, "seed": 0, "layer": layer, "head": None, "roc_auc": 0.6}
        for layer in range(4)
    ]
    shape = grid_shape(rows)
    assert shape == (4, 1)
    figure = score_heatmap(mean_map(score_maps(rows, "real", shape)), label="AUC", title="layers")
    assert figure.axes[0].get_xlabel() == "one module per layer"


def test_the_best_and_the_worst_module_are_found() -> None:
    assert extreme_modules(np.array([[0.5, 0.9], [0.2, np.nan]])) == ((0, 1), (1, 0))


def test_the_overlap_is_counted_within_a_fold_and_seed() -> None:
    first = {(0, 0): np.array([[True, True, False, False]])}
    second = {(0, 0): np.array([[True, False, True, False]]), (1, 0): np.ones((1, 4), bool)}
    sentence = overlap_sentence(first, second, ("REAL", "ITI"))
    assert "REAL selects 2 and ITI 2" in sentence
    assert "1.0 are the same (by chance: 1.0)" in sentence


def test_a_method_without_seeds_is_compared_with_every_seed_of_the_other() -> None:
    chosen = np.array([[True, False]])
    first = {(0, 0): chosen, (0, 1): ~chosen}
    assert "0.5 are the same" in overlap_sentence(first, {(0, 0): chosen}, ("a", "b"))


def test_both_methods_show_in_the_map_of_selected_modules() -> None:
    halves = [c for c in selections().axes[0].collections if c.get_array() is not None]
    expected = [mean_map(selection_maps(SELECTED, name, SHAPE)).sum() for name in ("iti", "real")]
    assert [half.get_array().sum() for half in halves] == pytest.approx(expected)


def test_rank_correlations_equal_scipys_and_leave_out_absent_modules() -> None:
    rng = np.random.default_rng(0)
    maps = {(0, seed): rng.random((3, 5)) for seed in range(3)}
    maps[0, 1][0, 0] = np.nan
    matrix = correlation_matrix(maps)
    left, right = maps[0, 0].ravel()[1:], maps[0, 1].ravel()[1:]
    assert matrix[0, 1] == pytest.approx(spearmanr(left, right).statistic)
    assert np.allclose(matrix, matrix.T) and np.all(np.diag(matrix) == 1)
    assert np.isnan(rank_correlation(np.ones((2, 2)), rng.random((2, 2))))


def test_scores_of_a_single_run_without_a_rival_can_be_drawn() -> None:
    png_bytes(score_agreement({(0, 0): np.array([[0.5, 0.6], [0.7, 0.4]])}, {}))


def test_the_names_of_the_best_heads_cover_no_head_and_stay_within_the_axes() -> None:
    scores = np.linspace(0.5, 0.95, 20).reshape(4, 5)
    others = scores.clip(max=0.85)
    figure = score_agreement({(0, 0): scores}, {(0, 0): others})
    png_bytes(figure)  # Lays it out.
    axes = figure.axes[0]
    heads = axes.transData.transform(np.stack([scores.ravel(), others.ravel()], axis=1))
    frame = axes.get_window_extent()
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert names[0].get_text().strip() == "L3H4"
    for name in names:
        extent = name.get_window_extent()
        own = axes.transData.transform(name.xy)
        assert not any(extent.contains(*at) for at in heads if np.abs(at - own).max() > 1)
        assert frame.x1 + 1 >= extent.x1


def test_curves_average_both_axes_at_equal_dose() -> None:
    rows = [row for row in dose_rows() if row["method"] == "iti"]
    curve = effect_curve(rows, "mc1")
    for i, alpha in enumerate(sorted({row["alpha"] for row in rows})):
        same = [row for row in rows if row["alpha"] == alpha]
        assert curve.dose[i] == alpha
        assert curve.kl[i] == pytest.approx(sum(row["kl"] for row in same) / 4)
        assert curve.effect[i] == pytest.approx(sum(row["mc1"] for row in same) / 4)
        assert curve.spread[i] == pytest.approx(np.std([row["mc1"] for row in same], ddof=1))


def test_a_dose_that_a_run_lacks_is_left_out_of_the_mean() -> None:
    rows = [row for row in dose_rows() if row["method"] == "real"]
    assert 2.4 in effect_curve(rows, "mc1").dose
    gap = [row for row in rows if (row["alpha"], row["fold"], row["seed"]) != (2.4, 0, 1)]
    assert effect_curve(gap, "mc1").dose == (0.6, 1.2, 4.9)


def test_curves_of_several_k_are_not_mixed() -> None:
    rows = [row for row in dose_rows() if row["method"] == "real"]
    with pytest.raises(ValueError, match="there twice"):
        effect_curve([*rows, rows[0] | {"top_k": 8}], "mc1")


def test_effects_are_drawn_from_the_unsteered_model_on_each_line_named_at_its_end() -> None:
    figure = effects()
    assert len(figure.axes) == 3
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["cap on KL (0.05)", "matched KL (0.02)"]
    assert "[nats/token]" in figure.axes[0].get_xlabel()
    names = {text.get_text(): text for text in figure.axes[0].texts}
    assert set(names) == {"REAL", "ITI", "random modules", "unsteered"}
    curve = effect_curve([row for row in dose_rows() if row["method"] == "iti"], "mc1")
    assert names["ITI"].xy == pytest.approx((curve.kl[-1], curve.effect[-1]))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 5]
    assert [line.get_xydata()[0].tolist() for line in lines] == [[0.0, UNSTEERED["mc1"]]] * 3


def test_names_of_many_methods_do_not_overlap_and_the_best_stand_out() -> None:
    known = list(library())[1:]
    methods = [*known, *(f"method_{i}" for i in range(26 - len(known)))]
    rows = [
        {"method": name, "fold": 0, "seed": 0, "dose": "matched", "kl": 0.02, "mc1": 0.5 + i / 999}
        for i, name in enumerate(methods)
    ]
    cheap = {"method": "cheap", "fold": 0, "seed": 0, "dose": "tuned", "kl": 0.001, "mc1": 0.9}
    figure = effect_against_kl(
        [*rows, cheap], unsteered=UNSTEERED, max_kl=0.05, matched_kl=0.02, main="real"
    )
    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    boxes = sorted((Text.get_window_extent(text) for text in texts), key=lambda box: box.y0)
    assert len(boxes) == len(methods) + 2
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    coloured = {t.get_text() for t in texts if t.get_fontweight() == "bold"} - {"unsteered"}
    assert coloured == {method_label(name, "real") for name in ("real", *methods[-4:])}


def test_places_are_spread_apart_as_near_to_the_wanted_ones_as_can_be() -> None:
    assert spread_out([0.1, 0.5, 0.9], 0.2) == pytest.approx([0.1, 0.5, 0.9])
    assert spread_out([0.5, 0.5, 0.5], 0.2) == pytest.approx([0.3, 0.5, 0.7])
    assert spread_out([0.9, 1.0, 1.0], 0.2) == pytest.approx([0.6, 0.8, 1.0])


def test_effects_without_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a row a dose"):
        effect_against_kl([], unsteered={}, max_kl=0.05)


def test_ties_are_hollow_and_wins_are_filled() -> None:
    lines = [line for line in forest().axes[0].lines if line.get_marker() == "o"]
    faces = [line.get_markerfacecolor() for line in lines if len(line.get_xdata()) == 1]
    assert faces[0] == "white" and faces[1] != "white"


def test_an_interval_that_is_not_there_is_not_drawn() -> None:
    row = comparison("iti", 0.01, 0.02) | {"low": None, "high": None}
    png_bytes(difference_forest([row]))
    with pytest.raises(ValueError, match="no comparison of a headline metric"):
        difference_forest([comparison("iti", 0.01, 0.02, metric="kl")])


def test_code_use_is_a_share_sorted_within_its_module() -> None:
    shares = usage_shares(np.array([[1, 3, 0], [0, 0, 0]]))
    assert shares.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.0, 0.0]]


def test_collapsed_codebooks_are_flagged() -> None:
    figure = codes()
    assert "1 of 3 collapsed" in figure.get_suptitle()
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert "collapsed" in labels
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["c", "a", "b"]
    with pytest.raises(ValueError, match="expected one number"):
        codebook_use(np.ones((2, 3), int), np.ones(1), np.zeros(2, bool), ["a", "b"])


def neighbours_agree(points: np.ndarray, labels: np.ndarray) -> float:
    return float(cross_val_score(KNeighborsClassifier(5), points, labels, cv=5).mean())


def test_tsne_keeps_planted_clusters_apart_and_finds_none_where_there_is_none() -> None:
    apart = embed(*planted_cloud(16, 3.0, 200, 1), title="best")
    mixed = embed(*planted_cloud(16, 0.0, 200, 1), title="worst")
    assert neighbours_agree(apart.points, apart.labels) > 0.95
    assert neighbours_agree(mixed.points, mixed.labels) < 0.7


def test_tsne_is_the_same_for_the_same_seed_and_thins_out_evenly() -> None:
    values, labels = planted_cloud(4, 2.0, 3 * MAX_POINTS, 2)
    labels[:-60] = 0
    labels[-60:] = 1
    first = embed(values, labels, title="x", max_points=150)
    again = embed(values, labels, title="x", max_points=150)
    assert np.array_equal(first.points, again.points)
    assert len(first.points) == 150 and first.n_samples == 3 * MAX_POINTS
    assert int(first.labels.sum()) == 60


@pytest.mark.parametrize("values", [np.ones((6, 3)), np.arange(6.0)[:, None]])
def test_tsne_copes_with_values_that_do_not_vary_in_two_ways(values: np.ndarray) -> None:
    assert np.isfinite(embed(values, np.array([0, 1] * 3), title="flat").points).all()


def test_tsne_refuses_what_it_cannot_embed() -> None:
    labels = np.array([0, 1] * 4)
    for values, message in (
        (np.full((8, 2), np.nan), "NaN or infinity"),
        (np.ones((7, 2)), "expected"),
    ):
        with pytest.raises(ValueError, match=message):
            embed(values, labels, title="x")
    with pytest.raises(ValueError, match="needs at least"):
        embed(np.ones((3, 2)), labels[:3], title="x")


def gallery_data() -> GalleryData:
    values, labels = planted_cloud(8, 4.0, 40, 0)
    return GalleryData(
        module_scores=SCORES,
        selected=SELECTED,
        curves=dose_rows(),
        unsteered=UNSTEERED,
        comparisons=[comparison("iti", 0.01, 0.02)],
        embeddings=[embed(values, labels, title="L0H0")],
        codebooks=CodebookCounts(np.ones((2, 4), int), np.full(2, 4.0), np.zeros(2, bool), "ab"),
    )


def test_the_gallery_has_every_picture_once_with_words() -> None:
    pictures = draw_gallery(gallery_data())
    assert [picture.name for picture in pictures] == [
        "effect_against_kl",
        "differences",
        "scores_real",
        "scores_iti",
        "scores_random",
        "selected_modules",
        "score_agreement",
        "tsne",
        "codebook_use",
    ]
    for picture in pictures:
        assert picture.title and picture.caption and picture.alt
        assert 400 < picture.shown_width < 1200


def test_the_gallery_leaves_out_what_has_no_data() -> None:
    assert draw_gallery(GalleryData()) == ()
    names = [picture.name for picture in draw_gallery(GalleryData(module_scores=SCORES))]
    assert names == ["scores_real", "scores_iti", "scores_random", "score_agreement"]
