"""Drift: every module's score before and now, with those that entered or left the best K."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from real_tasks.localizers.labels import method_label
from real_tasks.report.figures import style
from real_tasks.report.figures.picture import Picture
from real_tasks.results.comparing.agreement import rank_agreement
from real_tasks.results.scores import Scores, best_modules
from real_tasks.vocabulary.types import ModuleId

LETTERS = (0.09, 0.035)
"""Width and height that a name takes, as shares of the axes; nearer ones would overlap."""

_PALE = "#b4b4b4"
_STYLES = {
    "not among the best": (_PALE, "o", 12),
    "among the best before and now": (style.BLUE, "o", 30),
    "entered": (style.GREEN, "^", 52),
    "left": (style.VERMILLION, "v", 52),
}


def drift_picture(before: Scores, after: Scores, localizer: str, top_k: int) -> Picture:
    """Draw a localizer's scores before and now, with their words; see `drift_scatter`."""
    groups = changes(before, after, top_k)
    entered, left = (
        "; ".join(module.label for module in groups[name]) or "none" for name in ("entered", "left")
    )
    return Picture(
        name=f"drift_{localizer}",
        title=f"Scores of {method_label(localizer)} before and now",
        caption="Each point is a module: its score before (across) and now (up), averaged over "
        "folds and seeds. On the diagonal nothing has changed. Dotted: the lowest score among the "
        f"best {top_k}, before and now.",
        alt=f"Scatter of scores before and now. Entered the best {top_k}: {entered}. Left: {left}.",
        png=style.png_bytes(drift_scatter(before, after, localizer, top_k)),
    )


def drift_scatter(before: Scores, after: Scores, localizer: str, top_k: int) -> Figure:
    """Draw scores before and now as a scatter, marking what entered and what left the best K.

    Modules that only one of the two has are left out.

    Raises:
        ValueError: no module has both scores.
    """
    found = rank_agreement(before, after, top_k, n_resamples=0)
    groups = changes(before, after, found.top_k)
    figure = style.new_figure(6.4, 5.6)
    axes = figure.subplots()
    for name, (color, marker, size) in _STYLES.items():
        points = [(before[module], after[module]) for module in groups[name]]
        x, y = np.array(points).reshape(-1, 2).T
        axes.scatter(
            x,
            y,
            color=color,
            marker=marker,
            s=size,
            edgecolor="white",
            linewidth=0.5,
            label=f"{name} ({len(points)})",
            zorder=3 if name in ("entered", "left") else 2,
        )
    style.light_frame(axes)
    _lines(axes, before, after, groups)
    _name_changes(axes, groups, before, after)
    who = method_label(localizer)
    style.label_axes(axes, f"score by {who}, before", f"score by {who}, now")
    style.legend_below(figure, [axes], 2)
    style.figure_title(
        figure,
        f"Spearman {found.spearman:.2f} over {found.n_modules} modules; {found.shared} of the "
        f"best {found.top_k} are the same",
    )
    return figure


def changes(before: Scores, after: Scores, top_k: int) -> dict[str, list[ModuleId]]:
    """Return the modules with both scores by what became of them, best now first.

    Equal scores come in the order of modules.
    """
    old, new = rank_agreement(before, after, top_k, n_resamples=0).best
    groups: dict[str, list[ModuleId]] = {name: [] for name in _STYLES}
    for module in best_modules({module: after[module] for module in before.keys() & after.keys()}):
        was, now = module in old, module in new
        name = {(True, True): 1, (False, True): 2, (True, False): 3}.get((was, now), 0)
        groups[list(_STYLES)[name]].append(module)
    return groups


def _lines(
    axes: Axes, before: Scores, after: Scores, groups: Mapping[str, Sequence[ModuleId]]
) -> None:
    every = [module for group in groups.values() for module in group]
    low = min(min(before[m], after[m]) for m in every)
    high = max(max(before[m], after[m]) for m in every)
    axes.plot([low, high], [low, high], color=style.GREY, linewidth=0.9, zorder=1)
    stayed = groups["among the best before and now"]
    for scores, further, line in (
        (before, groups["left"], axes.axvline),
        (after, groups["entered"], axes.axhline),
    ):
        best = [scores[module] for module in (*stayed, *further)]
        line(min(best), color=style.GREY, linestyle=":", linewidth=0.9, zorder=1)


def _name_changes(
    axes: Axes, groups: Mapping[str, Sequence[ModuleId]], before: Scores, after: Scores
) -> None:
    """Name what entered or left, the largest change first, where the name has room."""
    every = {"textcoords": "offset points", "zorder": 4}
    looks = {
        module: {"xytext": offset, "color": _STYLES[name][0], **every}
        for name, offset in (("entered", (6, 4)), ("left", (6, -10)))
        for module in groups[name]
    }
    named = (
        (module.short_name, (before[module], after[module]), looks[module])
        for module in sorted(looks, key=lambda m: -abs(after[m] - before[m]))
    )
    width, height = np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())
    style.name_points(axes, named, (LETTERS[0] * width, LETTERS[1] * height))
