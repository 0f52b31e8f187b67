"""A map ``[layer, head]`` of the modules that two methods select."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from real_tasks.report.figures import style
from real_tasks.report.figures.grids import SelectionMap, mean_map
from real_tasks.results.scores import RunKey, paired

BORDER = "#cccccc"
HALVES = (
    np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]),
    np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5]]),
)
"""Corners of a cell's upper left and lower right triangle, from its centre."""


def overlap_sentence(
    first: Mapping[RunKey, SelectionMap],
    second: Mapping[RunKey, SelectionMap],
    names: tuple[str, str],
) -> str:
    """Say how many modules two methods share within a fold and seed, and how many by chance.

    Chance is two independent draws of the same sizes from all modules of the map.
    """
    pairs = [(one, other) for _, one, other in paired(first, second)]
    if not pairs:
        return f"Modules selected by {names[0]} and {names[1]}"
    shared = np.mean([(one & other).sum() for one, other in pairs])
    sizes = np.array([(one.sum(), other.sum()) for one, other in pairs])
    chance = np.mean(sizes.prod(axis=1) / pairs[0][0].size)
    one, other = (f"{size:.1f}".removesuffix(".0") for size in sizes.mean(axis=0))
    return (
        f"{names[0]} selects {one} and {names[1]} {other} modules in a fold and seed; "
        f"{shared:.1f} are the same (by chance: {chance:.1f})"
    )


def selection_map(
    first: Mapping[RunKey, SelectionMap],
    second: Mapping[RunKey, SelectionMap],
    *,
    names: tuple[str, str] = ("REAL", "ITI"),
) -> Figure:
    """Draw which modules two methods select, in one map of split cells.

    The upper left half of a cell is the first method's, the lower right half the second's; the
    depth of the colour is the share of folds and seeds that select the module.

    Raises:
        ValueError: one of the two is empty.
    """
    shares = (mean_map(first), mean_map(second))
    n_layers, n_heads = shares[0].shape
    figure = style.map_figure(n_layers, n_heads, bars=2)
    axes = figure.subplots()
    axes.set_aspect("equal")
    width = 0.6 if n_layers * n_heads <= style.MAX_ANNOTATED_CELLS else 0.25
    axes.vlines(np.arange(n_heads) + 0.5, -0.5, n_layers - 0.5, color=BORDER, linewidth=width)
    axes.hlines(np.arange(n_layers) + 0.5, -0.5, n_heads - 0.5, color=BORDER, linewidth=width)
    for side, color in ((1, style.VERMILLION), (0, style.BLUE)):
        half = _draw_half(axes, shares[side], side, color)
        where = ("upper left", "lower right")[side]
        style.color_bar(figure, half, axes, f"{names[side]} ({where}): share of folds and seeds")
    style.module_ticks(axes, n_layers, n_heads)
    style.label_axes(axes, style.head_axis_label(n_heads), "layer")
    style.figure_title(figure, overlap_sentence(first, second, names))
    return figure


def _draw_half(
    axes: Axes, share: Float[np.ndarray, "layer head"], side: int, color: str
) -> PolyCollection:
    places = np.argwhere(share > 0)[:, ::-1]
    half = PolyCollection(
        list(places[:, None, :] + HALVES[side]),
        array=share[share > 0],
        cmap=LinearSegmentedColormap.from_list("share", ["white", color]),
        norm=Normalize(0, 1),
        edgecolor="none",
        zorder=2,
    )
    axes.add_collection(half)
    if share.size <= style.MAX_ANNOTATED_CELLS:
        shift = (-0.2, 0.2)[side]
        for x, y in places:
            value, at = share[y, x], (x + shift, y - shift)
            style.write_in_cell(half, value, at, f"{value:.0%}", fontsize=6.5)
    return half
