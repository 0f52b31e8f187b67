"""The fair comparison: effect against KL. An alpha is not the same dose for two methods."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from real_tasks.localizers import Look
from real_tasks.report.figures import style
from real_tasks.results.labels import headline_metrics, method_label, metric_label, ordered_methods
from real_tasks.results.summary import Row


@dataclass(frozen=True)
class EffectCurve:
    """Means of KL (nats/token) and effect at each alpha that every fold and seed of a method has.

    ``alpha`` rises, in standard deviations along the direction; ``spread`` is the sample standard
    deviation of the effect, 0 for a single fold and seed.
    """

    alpha: Float[np.ndarray, "alpha"]
    kl: Float[np.ndarray, "alpha"]
    effect: Float[np.ndarray, "alpha"]
    spread: Float[np.ndarray, "alpha"]


def effect_curve(rows: Sequence[Row], metric: str) -> EffectCurve:
    """Average one method's rows over folds and seeds: both axes, at equal alpha.

    An alpha that a fold or seed lacks is left out: its mean would be over other runs than its
    neighbours' means.

    Raises:
        ValueError: a fold and seed has an alpha twice.
    """
    values: dict[float, dict[tuple[int, int], tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        run = (row["fold"], row["seed"])
        if run in values[row["alpha"]]:
            raise ValueError(
                f"alpha {row['alpha']} of {row['method']!r} is there twice in fold {run[0]}, seed "
                f"{run[1]}; expected the rows of one K"
            )
        values[row["alpha"]][run] = (row["kl"], row[metric])
    runs = {run for at_alpha in values.values() for run in at_alpha}
    alphas = sorted(alpha for alpha, at_alpha in values.items() if len(at_alpha) == len(runs))
    table = np.array([list(values[alpha].values()) for alpha in alphas], dtype=np.float64)
    table = table.reshape(len(alphas), len(runs), 2)
    spread = table[..., 1].std(axis=1, ddof=1) if len(runs) > 1 else np.zeros(len(alphas))
    mean = table.mean(axis=1)
    return EffectCurve(np.array(alphas), mean[:, 0], mean[:, 1], spread)


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
    """Draw the headline metrics against KL over alpha, for each method.

    Args:
        rows: one for a method, fold, seed and alpha, at that method's K, with columns ``method``,
            ``fold``, ``seed``, ``alpha``, ``kl`` (nats/token) and metrics.
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
        raise ValueError("no row has a headline metric; expected a row an alpha")
    figure = style.new_figure(3.3 * max(len(metrics), 2), 4.9)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _draw_panel(axes, rows, tuned, metric, main)
        if metric in unsteered:
            _draw_unsteered(axes, unsteered[metric])
    _dose_axis(panels, [row["kl"] for row in (*rows, *tuned)], max_kl, matched_kl)
    style.figure_title(
        figure,
        f"Effect against side effect, {questions}: means over folds and seeds (thick), "
        "SD (band), each fold and seed (thin); large marker: the tuned setting",
    )
    style.legend_below(figure, panels, 4)
    return figure


def _draw_panel(
    axes: Axes, rows: Sequence[Row], tuned: Sequence[Row], metric: str, main: str | None
) -> None:
    for method in ordered_methods(row["method"] for row in rows):
        look = style.method_style(method)
        mine = [row for row in rows if row["method"] == method and row.get(metric) is not None]
        if mine:
            _draw_curves(axes, mine, metric, look, method_label(method, main))
        chosen = [row for row in tuned if row["method"] == method and row.get(metric) is not None]
        if chosen:
            axes.plot(
                np.mean([row["kl"] for row in chosen]),
                np.mean([row[metric] for row in chosen]),
                color=look.color,
                marker=look.marker,
                markersize=11,
                markeredgecolor="black",
                markeredgewidth=1.2,
                zorder=5,
            )
    axes.set_ylim(-0.02, 1.02)
    style.light_frame(axes)
    style.label_axes(
        axes, "KL(original || steered) [nats/token]", f"{metric_label(metric)} (share)"
    )


def _draw_curves(axes: Axes, rows: Sequence[Row], metric: str, look: Look, label: str) -> None:
    runs = defaultdict(list)
    for row in sorted(rows, key=lambda row: float(row["alpha"])):
        runs[row["fold"], row["seed"]].append((row["kl"], row[metric]))
    for run in runs.values():
        axes.plot(*np.array(run).T, color=look.color, linewidth=0.6, alpha=0.22)
    curve = effect_curve(rows, metric)
    low, high = curve.effect - curve.spread, curve.effect + curve.spread
    axes.fill_between(curve.kl, low, high, color=look.color, alpha=0.10, linewidth=0)
    axes.plot(
        curve.kl,
        curve.effect,
        color=look.color,
        linestyle=look.linestyle,
        marker=look.marker,
        markersize=4.5,
        linewidth=1.8,
        label=label,
    )


def _draw_unsteered(axes: Axes, effect: float) -> None:
    look = style.method_style("unsteered")
    axes.axhline(
        effect,
        color=look.color,
        linestyle=look.linestyle,
        linewidth=1.2,
        label="unsteered (KL 0)",
    )
    axes.plot(0, effect, color=look.color, marker=look.marker, markersize=9, clip_on=False)


def _dose_axis(
    panels: Iterable[Axes], kls: Sequence[float], max_kl: float, matched_kl: float | None
) -> None:
    """Set the KL axis: linear from 0 (unsteered) to the smallest decade, then logarithmic."""
    positive = sorted(kl for kl in kls if kl > 0) or [max_kl]
    smallest = float(np.quantile(positive, 0.1))
    first = int(np.clip(math.floor(math.log10(smallest)), -5, math.floor(math.log10(max_kl))))
    largest = max(*positive, max_kl) * 1.25
    ticks = [0.0, *(10.0**power for power in range(first, math.ceil(math.log10(largest)) + 1))]
    for axes in panels:
        axes.set_xscale("symlog", linthresh=10.0**first, linscale=1.0)
        axes.set_xlim(min(0.0, *kls), largest)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(FixedLocator([]))
        # Not mathtext: its parser is not safe between threads.
        axes.xaxis.set_major_formatter(
            lambda kl, _: f"{kl:g}" if kl == 0 or kl >= 1e-3 else f"{kl:.0e}".replace("e-0", "e-")
        )
        axes.axvline(max_kl, color="black", linewidth=1.2, label=f"cap on KL ({max_kl:g})")
        if matched_kl is not None:
            label = f"matched KL ({matched_kl:g})"
            axes.axvline(matched_kl, color="black", linewidth=1.0, linestyle="--", label=label)
