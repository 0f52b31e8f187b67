"""Colours, markers and sizes of all pictures, set on each figure.

Nothing here goes through matplotlib's rcParams: they are global, ``rc_context`` included, and
pictures are drawn from several threads at a time.
"""

import io
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from real_tasks.report.figures.picture import PIXELS_PER_INCH

BLUE = "#0072B2"
SKY = "#56B4E9"
GREEN = "#009E73"
ORANGE = "#E69F00"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#767676"
ABSENT = "#d9d9d9"

TITLE_POINTS = 11.0
LABEL_POINTS = 10.0
TICK_POINTS = 9.0

MAX_ANNOTATED_CELLS = 100
LEFT_OF_POINT = {"ha": "right", "va": "center"}
RIGHT_OF_POINT = {"ha": "left", "va": "center"}


def new_figure(
    width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """Make an empty white figure of ``width`` x ``height`` inches.

    ``compressed`` suits axes of a fixed aspect, which leave room beside them.
    """
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def png_bytes(figure: Figure) -> bytes:
    """Render a figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, facecolor="white")
    return buffer.getvalue()


def figure_title(figure: Figure, text: str) -> None:
    """Set the title, wrapped to the figure's width."""
    letters = int(figure.get_figwidth() / 0.096)
    figure.suptitle(
        textwrap.fill(text, letters), fontsize=TITLE_POINTS, fontweight="bold", x=0.01, ha="left"
    )


def label_axes(axes: Axes, x: str, y: str, title: str | None = None) -> None:
    """Set axis labels, a panel's title and the sizes of all letters of the axes."""
    axes.set_xlabel(x, fontsize=LABEL_POINTS)
    axes.set_ylabel(y, fontsize=LABEL_POINTS)
    if title is not None:
        axes.set_title(title, fontsize=LABEL_POINTS, loc="left")
    axes.tick_params(labelsize=TICK_POINTS)


def light_frame(axes: Axes) -> None:
    """Leave only the left and lower spine, over a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def cell_inches(n_layers: int, n_heads: int) -> float:
    """Return the side of a cell that lets the whole map fit on a page."""
    return min(0.62, 6.6 / n_heads, 6.6 / n_layers)


def map_figure(n_layers: int, n_heads: int, bars: int = 1) -> Figure:
    """Make a figure that fits a map, with room for colour bars, title and legend."""
    cell = cell_inches(n_layers, n_heads)
    width, height = n_heads * cell + 1.0 + 1.2 * bars, n_layers * cell + 1.7
    return new_figure(max(5.6, width), max(2.6, height), "compressed")


def color_bar(
    figure: Figure, colored: ScalarMappable, axes: Axes, label: str, **place: Any
) -> None:
    """Put a labelled colour bar beside ``axes``; ``place`` as of matplotlib's ``colorbar``.

    The label is wrapped to the figure's height.
    """
    letters = int(figure.get_figheight() / 0.12)
    label = "\n".join(textwrap.fill(line, letters) for line in label.split("\n"))
    bar = figure.colorbar(colored, ax=axes, **{"fraction": 0.05, "pad": 0.02, **place})
    bar.set_label(label, fontsize=LABEL_POINTS)
    bar.ax.tick_params(labelsize=TICK_POINTS)


def write_in_cell(
    colored: AxesImage | Collection, value: float, at: tuple[float, float], text: str, **look: Any
) -> None:
    """Write a text at x and y, in the ink that reads best on the colour of ``value``."""
    ink = readable_on(colored.to_rgba(np.array([value]))[0])
    axes = colored.axes
    assert isinstance(axes, Axes)
    axes.text(*at, text, ha="center", va="center", color=ink, **look)


def name_points(
    axes: Axes,
    points: Iterable[tuple[str, tuple[float, float], Mapping[str, Any]]],
    room: tuple[float, float],
) -> None:
    """Name points where no earlier one is within ``room``, a width and a height in data units.

    ``points``: name, place and arguments of matplotlib's ``annotate``, the most important first.
    """
    taken: list[tuple[float, float]] = []
    for name, (x, y), look in points:
        if all(abs(x - a) >= room[0] or abs(y - b) >= room[1] for a, b in taken):
            taken.append((x, y))
            halo = [withStroke(linewidth=2, foreground="white")]
            axes.annotate(name, (x, y), fontsize=8, path_effects=halo, **look)


def thin_ticks(count: int, most: int = 16) -> list[int]:
    """Return at most ``most`` round positions of ``range(count)``, evenly spaced from 0."""
    steps = (base * 10**power for power in range(6) for base in (1, 2, 4, 5, 8))
    step = next(step for step in steps if -(-count // step) <= most)
    return list(range(0, count, step))


def module_ticks(axes: Axes, n_layers: int, n_heads: int) -> None:
    """Number layers and heads on the axes of a map ``[layer, head]``, thinned out if many."""
    heads, layers = thin_ticks(n_heads), thin_ticks(n_layers)
    axes.set_xticks(heads, [str(head) for head in heads])
    axes.set_yticks(layers, [str(layer) for layer in layers])
    axes.set_xlim(-0.5, n_heads - 0.5)
    axes.set_ylim(-0.5, n_layers - 0.5)
    if n_heads == 1:
        axes.set_xticks([])


def head_axis_label(n_heads: int) -> str:
    """Name the horizontal axis of a map ``[layer, head]``."""
    return "head" if n_heads > 1 else "one module per layer"


def readable_on(color: tuple[float, ...]) -> str:
    """Return black or white, whichever reads better on a background of RGB in 0..1."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color
    ]
    luminance = float(np.dot(linear[:3], (0.2126, 0.7152, 0.0722)))
    return "white" if luminance < 0.18 else "black"


def legend_below(figure: Figure, axes: Iterable[Axes], columns: int) -> None:
    """Put one legend of all axes under the figure, each label once."""
    entries: dict[str, Artist] = {}
    for each in axes:
        handles, labels = each.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    if entries:
        figure.legend(
            handles=list(entries.values()),
            labels=list(entries),
            loc="outside lower center",
            ncols=columns,
            fontsize=TICK_POINTS,
            frameon=False,
        )
