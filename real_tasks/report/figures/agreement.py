"""Do scores agree: between two localizers, and between folds and seeds of one."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from real_tasks.report.figures import style
from real_tasks.report.figures.grids import ScoreMap, mean_map
from real_tasks.results.scores import RunKey

NAMED_HEADS = 6


def rank_correlation(first: ScoreMap, second: ScoreMap) -> float:
    """Return Spearman's rank correlation over modules that both maps score.

    NaN where fewer than three are scored, or all scores of a map are equal.
    """
    both = np.isfinite(first) & np.isfinite(second)
    a, b = first[both], second[both]
    if a.size < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def correlation_matrix(maps: Mapping[RunKey, ScoreMap]) -> Float[np.ndarray, "run run"]:
    """Return Spearman's correlation of the scores of each pair of folds and seeds."""
    grids = list(maps.values())
    matrix = np.eye(len(grids))
    for i in range(len(grids)):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = rank_correlation(grids[i], grids[j])
    return matrix


def score_agreement(
    first: Mapping[RunKey, ScoreMap],
    second: Mapping[RunKey, ScoreMap],
    *,
    names: tuple[str, str] = ("REAL", "ITI"),
    labels: tuple[str, str] = ("ROC-AUC", "validation accuracy"),
) -> Figure:
    """Draw a scatter of two localizers' mean scores, and the rank correlation of the first's runs.

    Both have a map of scores for each fold and seed; an empty ``second`` leaves the scatter out.
    ``names`` are the localizers', ``labels`` say what their scores are.

    Raises:
        ValueError: ``first`` is empty.
    """
    mean, matrix = mean_map(first), correlation_matrix(first)
    n_panels = 1 + bool(second)
    figure = style.new_figure(4.7 * n_panels + 0.2, 4.3)
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    if second:
        other = mean_map(second)
        _scatter(figure, panels[0], mean, other)
        title = f"Spearman {rank_correlation(mean, other):.2f} over modules"
        x, y = (f"{who}: {what} (mean)" for who, what in zip(names, labels, strict=True))
        style.label_axes(panels[0], x, y, title)
    _matrix(figure, panels[-1], matrix, [f"fold {fold}, seed {seed}" for fold, seed in first])
    style.label_axes(panels[-1], "", "", f"{names[0]} between folds and seeds")
    panels[-1].tick_params(axis="x", rotation=45)
    style.figure_title(figure, _finding(matrix, names[0]))
    return figure


def _finding(matrix: Float[np.ndarray, "run run"], name: str) -> str:
    pairs = matrix[np.tril_indices(len(matrix), -1)]
    pairs = pairs[np.isfinite(pairs)]
    if pairs.size == 0:
        return f"Scores of {name}"
    return f"{name}'s ranking of modules between folds and seeds: mean Spearman {pairs.mean():.2f}"


def _scatter(figure: Figure, axes: Axes, first: ScoreMap, second: ScoreMap) -> None:
    n_layers = len(first)
    layer, _ = np.indices(first.shape)
    points = axes.scatter(
        first,
        second,
        c=layer,
        cmap=colormaps["viridis"].resampled(n_layers),
        s=34 if first.size <= 200 else 12,
        edgecolor="white",
        linewidth=0.4,
        vmin=-0.5,
        vmax=n_layers - 0.5,
    )
    style.light_frame(axes)
    style.color_bar(
        figure, points, axes, "layer", ticks=style.thin_ticks(n_layers, 9), fraction=0.15
    )
    both = np.isfinite(first) & np.isfinite(second)
    room = 0.06 * max(np.ptp(second[both]) if both.any() else 0.0, 1e-9)
    best = np.argsort(np.where(both, -first, np.inf), axis=None)[: min(NAMED_HEADS, both.sum())]
    named = (
        (f"  L{place[0]}H{place[1]}", (first[place], second[place]), style.RIGHT_OF_POINT)
        for place in zip(*np.unravel_index(best, first.shape), strict=True)
    )
    style.name_points(axes, named, (np.inf, room))
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.14 * (right - left))  # room for the best one's name


def _matrix(
    figure: Figure, axes: Axes, matrix: Float[np.ndarray, "run run"], names: list[str]
) -> None:
    image = axes.imshow(matrix, cmap="viridis", vmin=min(0.0, float(np.nanmin(matrix))), vmax=1)
    axes.set_facecolor(style.ABSENT)
    shown = style.thin_ticks(len(names), 12)
    axes.set_xticks(shown, [names[i] for i in shown], ha="right", rotation_mode="anchor")
    axes.set_yticks(shown, [names[i] for i in shown])
    style.color_bar(figure, image, axes, "Spearman's rank correlation", fraction=0.15, shrink=0.85)
    if matrix.size <= style.MAX_ANNOTATED_CELLS:
        for (i, j), value in np.ndenumerate(matrix):
            text = "n/a" if np.isnan(value) else f"{value:.2f}"
            style.write_in_cell(image, value, (j, i), text, fontsize=style.TICK_POINTS - 1)
