"""The fair comparison: effect against KL. An alpha is not the same dose for two methods."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from scipy.optimize import isotonic_regression

from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.localizers.labels import method_label, ordered_methods
from real_tasks.report.figures import style
from real_tasks.results.summary import Row

TUNED, MATCHED = "tuned", "matched"
"""Doses, where a row is about what was tested."""
COLORS = (style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE)
"""Of the run's own method and of the best others; the rest are grey."""
LABEL_INCHES = 0.17
"""Height of a line of labels."""
WIDTH_INCHES = 10.0
SMALLEST_SPAN = 0.1
"""Of the effects that a panel shows."""


@dataclass(frozen=True)
class EffectCurve:
    """Means of KL (nats/token) and effect at each dose that every fold and seed of a method has.

    Doses are ordered by KL; ``spread`` is the sample standard deviation of the effect, 0 for a
    single fold and seed.
    """

    dose: tuple[float | str, ...]
    kl: Float[np.ndarray, "dose"]
    effect: Float[np.ndarray, "dose"]
    spread: Float[np.ndarray, "dose"]


def effect_curve(rows: Sequence[Row], metric: str) -> EffectCurve:
    """Average one method's rows over folds and seeds: both axes, at equal dose.

    A dose that a fold or seed lacks is left out: its mean would be over other runs than its
    neighbours' means.

    Raises:
        ValueError: a fold and seed has a dose twice.
    """
    values: dict[float | str, dict[tuple[int, int], tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        run = (row["fold"], row["seed"])
        if run in values[row["dose"]]:
            raise ValueError(
                f"dose {row['dose']} of {row['method']!r} is there twice in fold {run[0]}, seed "
                f"{run[1]}; expected the rows of one K"
            )
        values[row["dose"]][run] = (row["kl"], row[metric])
    runs = {run for at_dose in values.values() for run in at_dose}
    doses = [dose for dose, at_dose in values.items() if len(at_dose) == len(runs)]
    table = np.array([list(values[dose].values()) for dose in doses], dtype=np.float64)
    table = table.reshape(len(doses), len(runs), 2)
    order = table[..., 0].mean(axis=1).argsort(kind="stable")
    spread = table[..., 1].std(axis=1, ddof=1) if len(runs) > 1 else np.zeros(len(doses))
    mean = table.mean(axis=1)[order]
    return EffectCurve(tuple(doses[i] for i in order), mean[:, 0], mean[:, 1], spread[order])


def effect_metrics(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the metrics to draw: the headline ones that some row has."""
    return headline_metrics(name for row in rows for name in row if row[name] is not None)


def effect_against_kl(
    rows: Sequence[Row],
    *,
    unsteered: Mapping[str, float],
    max_kl: float,
    tuned: Sequence[Row] = (),
    matched_kl: float | None = None,
    questions: str = "validation questions",
    main: str | None = None,
) -> Figure:
    """Draw the headline metrics against KL, a line a method from the unsteered model on.

    The run's own method and the best others at the first metric are coloured.

    Args:
        rows: one for a method, fold, seed and ``dose`` (its alpha at that method's K, `TUNED` or
            `MATCHED`), with columns ``method``, ``fold``, ``seed``, ``dose``, ``kl`` (nats/token;
            behind a gate on prompts, where that is larger) and metrics.
        unsteered: the metrics of the unsteered model.
        max_kl: cap on KL within which alpha is chosen, nats/token.
        tuned: rows of the chosen settings, on the same questions; a large marker at their mean.
        matched_kl: KL at which methods are compared like for like, nats/token.
        questions: which questions the rows are measured on.
        main: the run's own localizer, see `method_label`.

    Raises:
        ValueError: there are no rows, or none has an effect.
    """
    metrics = effect_metrics(rows)
    if not metrics:
        raise ValueError("no row has a headline metric; expected a row a dose")
    methods = ordered_methods(row["method"] for row in rows)
    colors = _colors(rows, methods, metrics[0], matched_kl or max_kl, main)
    height = max(2.8, LABEL_INCHES * (len(methods) + 2))
    figure = style.new_figure(WIDTH_INCHES, (height + 0.6) * len(metrics) + 0.9)
    panels = figure.subplots(len(metrics), 1, squeeze=False)[:, 0]
    right = max([matched_kl or 0.0, *(row["kl"] for row in (*rows, *tuned))]) * 1.06 or max_kl
    for axes, metric in zip(panels, metrics, strict=True):
        _frame(axes, metric, right, max_kl, matched_kl)
        ends = [
            (method_label(name, main), colors[name], *end)
            for name in methods
            if (end := _draw_line(axes, rows, tuned, name, metric, unsteered, colors[name]))
        ]
        if metric in unsteered:
            axes.axhline(unsteered[metric], color="black", linewidth=1.0, linestyle=":", zorder=1)
            ends.append(("unsteered", "black", right, unsteered[metric]))
        _label_ends(axes, ends, height)
    style.figure_title(
        figure,
        f"Effect against side effect, {questions}: means over folds and seeds; large marker: the "
        "tuned setting. In colour: the run's own method and the best others at equal KL",
    )
    style.legend_below(figure, panels, 3)
    return figure


def _colors(
    rows: Sequence[Row], methods: Sequence[str], metric: str, kl: float, main: str | None
) -> dict[str, str]:
    """Return every method's colour: the best at ``kl``, or as near to it as they get, stand out."""
    effect = {}
    for method in methods:
        curve = effect_curve(_of(rows, method, metric), metric)
        if len(curve.kl):
            # The KL of a test is about the one that was matched on validation texts.
            reached = bool(curve.kl[-1] >= 0.9 * kl)
            effect[method] = (reached, float(np.interp(kl, curve.kl, curve.effect)))
    best = sorted(effect, key=lambda name: (name != main, not effect[name][0], -effect[name][1]))
    return dict.fromkeys(methods, style.GREY) | dict(zip(best, COLORS, strict=False))


def _of(rows: Sequence[Row], method: str, metric: str) -> list[Row]:
    return [row for row in rows if row["method"] == method and row.get(metric) is not None]


def _draw_line(
    axes: Axes,
    rows: Sequence[Row],
    tuned: Sequence[Row],
    method: str,
    metric: str,
    unsteered: Mapping[str, float],
    color: str,
) -> tuple[float, float] | None:
    """Draw a method, and return where its line ends; None where nothing was measured."""
    curve = effect_curve(_of(rows, method, metric), metric)
    if not len(curve.kl):
        return None
    stands_out = color != style.GREY
    start = [unsteered[metric]] if metric in unsteered else []
    kl = np.array([*(0.0 for _ in start), *curve.kl.clip(0.0)])
    effect = np.array([*start, *curve.effect])
    look: dict[str, Any] = {
        "color": color,
        "zorder": 4 if stands_out else 2,
        "alpha": 1.0 if stands_out else 0.55,
    }
    width = 2.2 if stands_out else 1.0
    axes.plot(kl, effect, linewidth=width, marker="o", markersize=width + 1.5, **look)
    chosen = _of(tuned, method, metric)
    if chosen:
        at = [np.mean([row[name] for row in chosen]) for name in ("kl", metric)]
        axes.plot(*at, marker="o", markersize=9 if stands_out else 6, linestyle="", **look)
    return float(kl[-1]), float(effect[-1])


def _label_ends(axes: Axes, ends: Sequence[tuple[str, str, float, float]], height: float) -> None:
    """Name lines beside the panel, each at the height of its end as far as there is room."""
    low, high = _limits(axes)
    ordered = sorted(ends, key=lambda end: end[3])
    room = LABEL_INCHES / height
    places = spread_out([(end[3] - low) / (high - low) for end in ordered], room)
    for (name, color, kl, effect), place in zip(ordered, places, strict=True):
        grey = color == style.GREY
        axes.annotate(
            name,
            xy=(kl, effect),
            xytext=(1.03, place),
            textcoords="axes fraction",
            color="#555555" if grey else color,
            fontsize=8,
            fontweight="normal" if grey else "bold",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.6,
                "alpha": 0.35 if grey else 0.7,
                "linestyle": ":",
                "relpos": (0.0, 0.5),
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def _limits(axes: Axes) -> tuple[float, float]:
    """Give small differences no more than their due, and return the limits."""
    low, high = axes.get_ylim()
    missing = max(0.0, SMALLEST_SPAN - (high - low)) / 2
    axes.set_ylim(low - missing, high + missing)
    return axes.get_ylim()


def spread_out(wanted: Sequence[float], room: float) -> list[float]:
    """Return places of 0 to 1, ``room`` apart from each other, nearest to the wanted ones.

    The wanted ones rise; distances count by their squares.
    """
    steps = room * np.arange(len(wanted))
    places = isotonic_regression(np.array(wanted) - steps).x.clip(0.0, 1.0 - steps[-1])
    return [float(place) for place in places + steps]


def _frame(axes: Axes, metric: str, right: float, max_kl: float, matched_kl: float | None) -> None:
    """Set the axes: KL by its root, which is about in proportion to the dose."""
    axes.set_xscale("function", functions=(_root, lambda root: root * np.abs(root)))
    axes.set_xlim(-0.0004 * right, right)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(right)))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    # Not mathtext: its parser is not safe between threads.
    axes.xaxis.set_major_formatter(lambda kl, _: f"{kl:g}")
    if max_kl <= right:
        label = f"cap on KL ({max_kl:g})"
        axes.axvline(max_kl, color="black", linewidth=1.2, label=label, zorder=1)
    if matched_kl is not None:
        label = f"matched KL ({matched_kl:g})"
        axes.axvline(matched_kl, color="black", linewidth=1.0, linestyle="--", label=label)
    style.light_frame(axes)
    style.label_axes(
        axes, "KL(original || steered) [nats/token]", f"{metric_label(metric)} (share)"
    )


def _root(kl: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.asarray(np.sign(kl) * np.sqrt(np.abs(kl)))


def _ticks(right: float) -> list[float]:
    """Return round numbers up to ``right`` whose roots are a tenth of its root apart."""
    ticks, power = [0.0], 10.0 ** (math.floor(math.log10(right)) - 2)
    for kl in (base * power * 10.0**more for more in range(3) for base in (1, 2, 5)):
        if kl <= right and math.sqrt(kl) - math.sqrt(ticks[-1]) >= 0.1 * math.sqrt(right):
            ticks.append(kl)
    return ticks
