"""A map ``[layer, head]`` of how well each module tells aligned from violating answers."""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from real_tasks.report.figures import style

ALWAYS, SOMETIMES = "in every fold and seed", "in some"


def score_heatmap(
    scores: Float[np.ndarray, "layer head"],
    *,
    label: str,
    title: str,
    selected: Float[np.ndarray, "layer head"] | Bool[np.ndarray, "layer head"] | None = None,
    center: float | None = 0.5,
) -> Figure:
    """Draw the scores of all modules; cells without a score (NaN) are grey.

    Args:
        scores: one number a module.
        label: what the colour says, unit included.
        title: what is seen.
        selected: share of the folds and seeds that select a module, 0..1; those are outlined.
        center: score of chance: white, between blue below and red above. None: a plain scale.

    Raises:
        ValueError: no score is finite, or the shapes differ.
    """
    if not np.isfinite(scores).any():
        raise ValueError("every score is NaN; expected at least one finite score to draw")
    if selected is not None and selected.shape != scores.shape:
        raise ValueError(f"selection of shape {selected.shape}; expected {scores.shape}, as scores")
    n_layers, n_heads = scores.shape
    figure = style.map_figure(n_layers, n_heads)
    axes = figure.subplots()
    axes.set_facecolor(style.ABSENT)
    image = axes.imshow(
        np.ma.masked_invalid(scores),
        cmap="viridis" if center is None else "RdBu_r",
        norm=_norm(scores, center),
        origin="lower",
        interpolation="nearest",
    )
    style.module_ticks(axes, n_layers, n_heads)
    style.label_axes(axes, style.head_axis_label(n_heads), "layer")
    style.color_bar(figure, image, axes, label)
    if scores.size <= style.MAX_ANNOTATED_CELLS:
        for (layer, head), score in np.ndenumerate(scores):
            if np.isfinite(score):
                text = f"{score:z.2f}".replace("0.", ".", 1) if abs(score) < 1 else f"{score:z.2f}"
                style.write_in_cell(image, score, (head, layer), text, fontsize=style.TICK_POINTS)
    if selected is not None and (selected > 0).any():
        _outline(figure, axes, selected.astype(np.float64))
    style.figure_title(figure, title)
    return figure


def _norm(scores: Float[np.ndarray, "layer head"], center: float | None) -> Normalize:
    finite = scores[np.isfinite(scores)]
    if center is None:
        return Normalize(float(finite.min()), float(finite.max()))
    # At least +-0.1, so that noise around chance stays pale.
    half = max(0.1, float(np.ceil(np.abs(finite - center).max() * 20 - 1e-9) / 20))
    return Normalize(center - half, center + half)


def _outline(figure: Figure, axes: Axes, share: Float[np.ndarray, "layer head"]) -> None:
    points = style.cell_inches(*share.shape) * 72
    width = float(np.clip(points * 0.06, 0.8, 2.4))
    inset = min(0.5 * width / points + 0.02, 0.2)
    for mask, dashes in ((share >= 1, "-"), ((share > 0) & (share < 1), (0, (2, 1.2)))):
        frames = [
            Rectangle((head - 0.5 + inset, layer - 0.5 + inset), 1 - 2 * inset, 1 - 2 * inset)
            for layer, head in np.argwhere(mask)
        ]
        # White under black keeps the frame visible on dark cells.
        for color, extra, dash in (("white", 1.2, "-"), ("black", 0.0, dashes)):
            axes.add_collection(
                PatchCollection(
                    frames,
                    facecolor="none",
                    edgecolor=color,
                    linewidth=width + extra,
                    linestyle=dash,
                )
            )
    keys = [
        Patch(facecolor="none", edgecolor="black", linewidth=1.6, label=ALWAYS),
        Patch(facecolor="none", edgecolor="black", linewidth=1.6, linestyle=":", label=SOMETIMES),
    ]
    figure.legend(
        handles=keys,
        title="selected",
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=style.TICK_POINTS,
        title_fontsize=style.TICK_POINTS,
    )
