"""A forest plot of differences between methods with their intervals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.localizers.labels import method_label, ordered_methods
from real_tasks.report.figures import style
from real_tasks.results.findings import outcome
from real_tasks.results.labels import basis_label
from real_tasks.results.summary import Row

LOOKS = ((style.BLUE, "o"), (style.ORANGE, "s"), ("black", "D"))


def difference_forest(comparisons: Sequence[Row]) -> Figure:
    """Draw each difference with its interval: hollow where the interval includes 0, a tie.

    A panel for each headline metric. The rows have ``method``, ``baseline``, ``basis``, ``metric``,
    ``difference``, ``low``, ``high``.

    Raises:
        ValueError: no row is about a headline metric.
    """
    shown = headline_metrics(row["metric"] for row in comparisons)
    rows = [row for row in comparisons if row["metric"] in shown]
    if not rows:
        raise ValueError("no comparison of a headline metric; expected a row of one")
    order = ordered_methods(row[side] for row in rows for side in ("method", "baseline"))
    pairs = sorted(
        {(row["method"], row["baseline"]) for row in rows},
        key=lambda pair: (order.index(pair[0]), order.index(pair[1])),
    )
    bases = list(dict.fromkeys(row["basis"] for row in rows))
    figure = style.new_figure(
        2.2 + 2.6 * len(shown), 1.9 + 0.34 * len(pairs) * max(1, 0.6 * len(bases))
    )
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, metric in zip(panels, shown, strict=True):
        mine = [row for row in rows if row["metric"] == metric]
        _draw(axes, mine, pairs, bases)
        style.label_axes(axes, f"difference in {metric_label(metric)}", "")
    names = [f"{method_label(one)} − {method_label(baseline, one)}" for one, baseline in pairs]
    panels[0].set_yticks(range(len(pairs)), names)
    panels[0].set_ylim(len(pairs) - 0.5, -0.5)
    style.label_axes(panels[0], f"difference in {metric_label(shown[0])}", "methods compared")
    style.figure_title(
        figure, "Differences with intervals; right of 0: the first has more; hollow: a tie"
    )
    style.legend_below(figure, panels, 3)
    return figure


def _draw(
    axes: Axes, rows: Sequence[Row], pairs: Sequence[tuple[str, str]], bases: Sequence[str]
) -> None:
    axes.axvline(0, color="black", linewidth=1)
    offsets = np.linspace(-0.18, 0.18, len(bases)) if len(bases) > 1 else [0.0]
    for i, basis in enumerate(bases):
        color, marker = LOOKS[i % len(LOOKS)]
        # An empty series, so that the legend shows a filled marker whatever the outcomes.
        axes.plot([], [], color=color, marker=marker, linestyle="-", label=basis_label(basis))
        for row in (row for row in rows if row["basis"] == basis):
            y = pairs.index((row["method"], row["baseline"])) + offsets[i]
            if outcome(row) != "unknown":
                axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.8)
            hollow = outcome(row) in ("tie", "unknown")
            axes.plot(
                row["difference"],
                y,
                marker=marker,
                color=color,
                markersize=7,
                markerfacecolor="white" if hollow else color,
                markeredgewidth=1.6,
            )
    style.light_frame(axes)
    axes.margins(x=0.1)
