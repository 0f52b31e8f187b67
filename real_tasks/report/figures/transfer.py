"""Transfer: what steering found on one behaviour does to another, a matrix over behaviours."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from real_tasks.evaluation.labels import metric_label
from real_tasks.report.figures import style
from real_tasks.report.figures.picture import Picture
from real_tasks.results.findings import LOWER_IS_BETTER, signed
from real_tasks.results.summary import Row

CELL_WIDTH, CELL_HEIGHT = 1.2, 0.62
"""Inches of a cell: a gain and below it its interval, of three decimals."""
WIDEST = 7.6
"""Inches of all cells of a row, so that the picture fits on a page; more than six are crowded."""
SMALLEST_SCALE = 0.05
"""Gains as small as this stay pale, so that noise does not look like an effect."""


def transfer_picture(rows: Sequence[Row], metric: str) -> Picture:
    """Draw the matrix of one metric's gains, with its words; see `transfer_matrix`."""
    label = metric_label(metric)
    cells = _cells(rows, metric)
    return Picture(
        name=f"transfer_{metric}",
        title=f"Transfer between behaviours: {label}",
        caption=f"Gain in {label}: steered minus unsteered, on test questions of the behaviour of "
        "the column, with modules and directions found on the behaviour of the row. Bold: the "
        "interval below the number leaves out 0. Framed: found and used on the same behaviour.",
        alt=f"Matrix of gains in {label}. "
        + " ".join(
            f"From {_words(row['source'])} to {_words(row['target'])}: {signed(row['gain'])}."
            for row in cells.values()
        ),
        png=style.png_bytes(transfer_matrix(rows, metric)),
    )


def transfer_matrix(rows: Sequence[Row], metric: str) -> Figure:
    """Draw the gain of a metric for each pair of behaviours: blue is better, red is worse.

    Args:
        rows: of ``source`` (where modules and directions were found), ``target`` (where they were
            used), ``metric``, ``gain`` (steered minus unsteered), ``low`` and ``high`` (its
            interval, None or NaN where there is none).
        metric: the one that is drawn; pairs without it, or without a gain, are grey.

    Raises:
        ValueError: no row is about ``metric``, or a pair has it twice.
    """
    cells = _cells(rows, metric)
    sources, targets = _behaviours(rows, cells)
    pairs = [[cells.get((source, target)) for target in targets] for source in sources]
    gains = np.array([[cell["gain"] if cell else math.nan for cell in row] for row in pairs])
    width = 3.6 + min(CELL_WIDTH * len(targets), WIDEST)
    figure = style.new_figure(max(6.4, width), 2.2 + CELL_HEIGHT * len(sources))
    axes = figure.subplots()
    axes.set_facecolor(style.ABSENT)
    half = max(SMALLEST_SCALE, float(np.nanmax(np.abs(gains))))
    image = axes.imshow(
        np.ma.masked_invalid(gains),
        cmap="RdBu_r" if metric in LOWER_IS_BETTER else "RdBu",
        norm=Normalize(-half, half),
        aspect="auto",
    )
    decimals = 2 if CELL_WIDTH * len(targets) > WIDEST else 3
    for (source, target), row in cells.items():
        _write(image, row, (targets.index(target), sources.index(source)), decimals)
    _frame_own(axes, sources, targets)
    axes.set_xticks(
        range(len(targets)), [_words(name) for name in targets], rotation=30, ha="right"
    )
    axes.set_yticks(range(len(sources)), [_words(name) for name in sources])
    style.label_axes(axes, "used on", "found on")
    better = "less" if metric in LOWER_IS_BETTER else "more"
    label = f"{metric_label(metric)}, steered − unsteered\n({better} is better)"
    style.color_bar(figure, image, axes, label)
    style.figure_title(figure, _finding(cells, metric))
    return figure


def _cells(rows: Sequence[Row], metric: str) -> dict[tuple[str, str], Row]:
    cells: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["metric"] == metric and _is_number(row["gain"]):
            pair = (row["source"], row["target"])
            if pair in cells:
                raise ValueError(
                    f"{metric} from {pair[0]} to {pair[1]} is there twice; expected one row a pair"
                )
            cells[pair] = row
    if not cells:
        raise ValueError(f"no row about {metric}; expected at least one pair of behaviours")
    return cells


def _behaviours(
    rows: Sequence[Row], cells: Mapping[tuple[str, str], Row]
) -> tuple[list[str], list[str]]:
    """Return rows and columns in one order, that in which they come as sources."""
    order = list(dict.fromkeys([row["source"] for row in rows] + [row["target"] for row in rows]))
    sides = [{pair[side] for pair in cells} for side in (0, 1)]
    return [n for n in order if n in sides[0]], [n for n in order if n in sides[1]]


def _known(row: Row) -> bool:
    return _is_number(row["low"]) and _is_number(row["high"])


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _clear(row: Row) -> bool:
    return _known(row) and not row["low"] <= 0 <= row["high"]


def _write(image: AxesImage, row: Row, place: tuple[int, int], decimals: int) -> None:
    lines = [
        (_number(row["gain"], decimals), style.LABEL_POINTS, "bold" if _clear(row) else "normal")
    ]
    if _known(row):
        low, high = (_number(row[end], decimals) for end in ("low", "high"))
        lines.append((f"[{low}, {high}]", style.TICK_POINTS - 1.5, "normal"))
    for i, (text, points, weight) in enumerate(lines):
        at = (place[0], place[1] + (0.32 * i - 0.13 if len(lines) > 1 else 0.0))
        style.write_in_cell(image, row["gain"], at, text, fontsize=points, fontweight=weight)


def _number(value: float, decimals: int) -> str:
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _frame_own(axes: Axes, sources: Sequence[str], targets: Sequence[str]) -> None:
    for y, name in enumerate(sources):
        if name in targets:
            corner = (targets.index(name) - 0.5, y - 0.5)
            axes.add_patch(
                Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.8, clip_on=False)
            )


def _finding(cells: Mapping[tuple[str, str], Row], metric: str) -> str:
    """Say on how many other behaviours steering helps or harms beyond its interval."""
    foreign = [row for (source, target), row in cells.items() if source != target and _known(row)]
    if not foreign:
        return f"Gain in {metric_label(metric)}, steered minus unsteered"
    sign = -1 if metric in LOWER_IS_BETTER else 1
    helped = sum(_clear(row) and sign * row["gain"] > 0 for row in foreign)
    harmed = sum(_clear(row) and sign * row["gain"] < 0 for row in foreign)
    ties = len(foreign) - helped - harmed
    label = metric_label(metric)
    return (
        f"{label[0].upper()}{label[1:]} on another behaviour: transfers that help "
        f"{helped}, harm {harmed}, tie {ties}"
    )


def _words(behaviour: str) -> str:
    return behaviour.replace("_", " ")
