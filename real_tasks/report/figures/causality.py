"""What is read out of modules against what they do when they are steered alone."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from real_tasks.localizers import entry_of
from real_tasks.localizers.labels import MODULE_NOUNS, method_label
from real_tasks.report.figures import style
from real_tasks.results.comparing.agreement import LocalizerAgreement, RankAgreement
from real_tasks.results.scores import module_of
from real_tasks.results.summary import Row
from real_tasks.vocabulary.types import ModuleId

NAMED_MODULES = 5
MANY_POINTS = 200


@dataclass(frozen=True)
class _Look:
    label: str
    color: str
    marker: str
    size: float
    edge: str
    zorder: int


ALWAYS = _Look("selected in every fold and seed", style.BLUE, "o", 52, "black", 4)
SOMETIMES = _Look("selected in some", style.SKY, "s", 40, "black", 3)
NEVER = _Look("never selected", style.GREY, "o", 28, "white", 2)


def read_out_against_effect(
    agreement: LocalizerAgreement, selected: Mapping[ModuleId, float], localizer: str = "real"
) -> Figure:
    """Draw a point a module: its score by a localizer, and its own effect when steered alone.

    Args:
        agreement: of the localizer's scores (first) with the causal ones (second).
        selected: share of the folds and seeds in which a module is steered, 0..1; others are not.
        localizer: whose scores the first are.

    Raises:
        ValueError: no module has both scores.
    """
    modules = sorted(agreement.first.keys() & agreement.second.keys())
    if not modules:
        raise ValueError("no module has both a score and an effect; expected at least one")
    figure = style.new_figure(7.0, 5.2)
    axes = figure.subplots()
    meaning = entry_of(localizer).meaning
    axes.axhline(0, color="black", linewidth=0.8)
    if meaning.center is not None:
        axes.axvline(meaning.center, color="black", linewidth=0.8, linestyle=":")
    for look in (ALWAYS, SOMETIMES, NEVER):
        chosen = [module for module in modules if _look(selected.get(module, 0.0)) is look]
        _points(axes, agreement, chosen, look, few=len(modules) <= MANY_POINTS)
    _name_extremes(axes, agreement, modules)
    style.light_frame(axes)
    style.label_axes(
        axes,
        f"{method_label(localizer)}: {meaning.label}",
        "effect when steered alone [nats of log-odds]",
    )
    style.figure_title(figure, agreement_title(agreement.mean, modules[0], localizer))
    style.legend_below(figure, [axes], 3)
    return figure


def agreement_title(agreement: RankAgreement, example: ModuleId, localizer: str) -> str:
    """Say how far the two agree over the modules of the example's kind."""
    found = f"Spearman {agreement.spearman:.2f}"
    if np.isfinite(agreement.low):
        found += f" [{agreement.low:.2f}, {agreement.high:.2f}]"
    if not np.isfinite(agreement.spearman):
        found = "no rank correlation"
    return (
        f"{method_label(localizer)} against causal effects, {agreement.n_modules} "
        f"{MODULE_NOUNS[example.kind]}: {found.replace('-', '−')}"
    )


def selected_shares(rows: Iterable[Row], method: str) -> dict[ModuleId, float]:
    """Return in which share of its folds and seeds a method steers each module it ever steers.

    ``rows`` are of the view ``selected_modules``.
    """
    mine = [row for row in rows if row["method"] == method]
    n_runs = len({(row["fold"], row["seed"]) for row in mine})
    return {module: count / n_runs for module, count in Counter(map(module_of, mine)).items()}


def _look(share: float) -> _Look:
    if share <= 0:
        return NEVER
    return SOMETIMES if share < 1 else ALWAYS


def _points(
    axes: Axes, agreement: LocalizerAgreement, modules: Sequence[ModuleId], look: _Look, few: bool
) -> None:
    if modules:
        axes.scatter(
            [agreement.first[module] for module in modules],
            [agreement.second[module] for module in modules],
            s=look.size if few else look.size / 2.5,
            color=look.color,
            marker=look.marker,
            edgecolor=look.edge,
            linewidth=0.6,
            zorder=look.zorder,
            label=look.label,
        )


def _name_extremes(axes: Axes, agreement: LocalizerAgreement, modules: Sequence[ModuleId]) -> None:
    """Name the modules of the largest effects, either way, where their names have room."""
    effects = agreement.second
    room = 0.05 * max(np.ptp([effects[module] for module in modules]), 1e-9)
    largest = sorted(modules, key=lambda module: -abs(effects[module]))[:NAMED_MODULES]
    named = (
        (f"{module.short_name}  ", (agreement.first[module], effects[module]), style.LEFT_OF_POINT)
        for module in largest
    )
    style.name_points(axes, named, (np.inf, room))
