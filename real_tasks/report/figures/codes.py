"""How the codes of each module's codebook are used, and which codebooks are collapsed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from real_tasks.report.figures import style


def usage_shares(counts: Int[np.ndarray, "module code"]) -> Float[np.ndarray, "module code"]:
    """Return each code's share of its module's uses, the most used code first."""
    total = counts.sum(axis=1, keepdims=True)
    return -np.sort(-counts / np.maximum(total, 1), axis=1)


def codebook_use(
    counts: Int[np.ndarray, "module code"],
    perplexity: Float[np.ndarray, "module"],
    collapsed: Bool[np.ndarray, "module"],
    names: Sequence[str],
) -> Figure:
    """Draw the use of codes, modules sorted by perplexity, beside the perplexities themselves.

    Counts are how often each code is used; the perplexity of that is in codes, from 1 to the size
    of the codebook. Collapsed are those that the training called so.

    Raises:
        ValueError: the four disagree about the number of modules, or there is none.
    """
    sizes = {len(counts), len(perplexity), len(collapsed), len(names)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"{len(counts)} modules in counts, {len(perplexity)} in perplexity, "
            f"{len(collapsed)} in collapsed, {len(names)} names; expected one number, not 0"
        )
    order = np.argsort(perplexity, kind="stable")
    n_modules, n_codes = counts.shape
    figure = style.new_figure(8.2, float(np.clip(1.7 + 0.13 * n_modules, 3.2, 7.0)))
    heat, dots = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
    _heat(figure, heat, usage_shares(counts)[order])
    shown = style.thin_ticks(n_modules, 42)
    heat.set_yticks(shown, [names[order[i]] for i in shown])
    style.label_axes(heat, "code, from most to least used", "module, by perplexity")
    heat.tick_params(axis="y", labelsize=7 if n_modules > 20 else style.TICK_POINTS)
    _dots(dots, perplexity[order], collapsed[order], n_codes)
    n_collapsed = int(collapsed.sum())
    style.figure_title(
        figure,
        f"Codebooks use {np.median(perplexity):.1f} of {n_codes} codes (median perplexity); "
        f"{n_collapsed or 'none'} of {n_modules} collapsed",
    )
    return figure


def _heat(figure: Figure, axes: Axes, shares: Float[np.ndarray, "module code"]) -> None:
    image = axes.imshow(
        100 * shares,
        aspect="auto",
        cmap="viridis",
        origin="lower",
        interpolation="nearest",
        vmin=0,
        vmax=max(100 * float(np.quantile(shares, 0.99)), 1e-9),
    )
    codes = style.thin_ticks(shares.shape[1], 9)
    axes.set_xticks(codes, [str(code + 1) for code in codes])
    place = {"location": "bottom", "fraction": 0.15, "shrink": 0.8, "aspect": 30, "extend": "max"}
    style.color_bar(figure, image, axes, "share of the module's code uses [%]", **place)


def _dots(
    axes: Axes,
    perplexity: Float[np.ndarray, "module"],
    collapsed: Bool[np.ndarray, "module"],
    n_codes: int,
) -> None:
    place = np.arange(len(perplexity))
    size = 22 if len(perplexity) <= 100 else 7
    looks = [
        (~collapsed, size, style.BLUE, "o", "in use"),
        (collapsed, 2 * size, style.VERMILLION, "X", "collapsed"),
    ]
    for mine, s, color, marker, label in looks[: 1 + collapsed.any()]:
        axes.scatter(perplexity[mine], place[mine], s=s, color=color, marker=marker, label=label)
    axes.axvline(n_codes, color="black", linestyle="--", linewidth=1, label="size of the codebook")
    axes.set_xlim(0, n_codes * 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    style.light_frame(axes)
    axes.tick_params(axis="y", labelleft=False)
    style.label_axes(axes, "perplexity of code use [codes]", "")
    axes.legend(fontsize=style.TICK_POINTS - 1, loc="upper left", frameon=True, framealpha=0.9)
