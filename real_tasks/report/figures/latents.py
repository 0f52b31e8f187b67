"""t-SNE of activations and code latents: are aligned and violating answers apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from real_tasks.report.figures import style

MAX_POINTS = 256
MIN_POINTS = 5
LARGEST_PERPLEXITY = 30.0
ITERATIONS = 500


@dataclass(frozen=True)
class Embedding:
    """Samples in two dimensions, for one panel.

    Attributes:
        title: module and space, such as "L2H3 (best, AUC 0.87): activations".
        points: positions ``[point, 2]``; only neighbourhoods mean something, not distances.
        labels: 1 aligned, 0 violating.
        n_samples: how many samples there were before thinning out.
    """

    title: str
    points: Float[np.ndarray, "point 2"]
    labels: Int[np.ndarray, "point"]
    n_samples: int


def embed(
    values: Float[np.ndarray, "sample d"],
    labels: Int[np.ndarray, "sample"],
    *,
    title: str,
    seed: int = 0,
    max_points: int = MAX_POINTS,
) -> Embedding:
    """Compute the t-SNE of standardised values, on at most ``max_points`` samples, labels balanced.

    Perplexity is 30, or a third of the points where they are few. Same input and seed, same result.

    Raises:
        ValueError: shapes that do not match, values that are not finite, fewer than 5 samples.
    """
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise ValueError(
            f"values of shape {values.shape} and labels of shape {labels.shape}; expected "
            "[sample, d] and [sample]"
        )
    if len(values) < MIN_POINTS:
        raise ValueError(f"{len(values)} samples; t-SNE needs at least {MIN_POINTS}")
    if not np.isfinite(values).all():
        raise ValueError("values contain NaN or infinity; expected finite activations")
    kept = _thinned(labels, max_points, np.random.default_rng(seed))
    chosen = np.asarray(values, dtype=np.float32)[kept]
    spread = chosen.std(axis=0)
    standard = (chosen - chosen.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    points = _tsne(standard, seed)
    return Embedding(title, points, np.asarray(labels)[kept], len(values))


def _thinned(
    labels: Int[np.ndarray, "sample"], most: int, rng: np.random.Generator
) -> Int[np.ndarray, "point"]:
    if len(labels) <= most:
        return np.arange(len(labels))
    # The rarer label keeps what it has, up to half; the other fills up.
    ones, zeros = (rng.permutation(np.flatnonzero(labels == label)) for label in (1, 0))
    n_ones = min(len(ones), max(most // 2, most - len(zeros)))
    return np.sort(np.concatenate([ones[:n_ones], zeros[: most - n_ones]]))


def _tsne(values: Float[np.ndarray, "point d"], seed: int) -> Float[np.ndarray, "point 2"]:
    # One dimension, or none that varies, has no two principal components to start from.
    init = "pca" if values.shape[1] >= 2 and values.any() else "random"
    model = TSNE(
        init=init,
        perplexity=min(LARGEST_PERPLEXITY, (len(values) - 1) / 3),
        max_iter=ITERATIONS,
        random_state=seed,
    )
    # So few points gain nothing from threads, and on busy cores OpenMP's barriers cost minutes.
    with threadpool_limits(1, user_api="openmp"):
        return np.asarray(model.fit_transform(values), dtype=np.float64)


def tsne_panels(embeddings: Sequence[Embedding], *, title: str, samples: str) -> Figure:
    """Draw embeddings in reading order, two a row: best head above worst, say.

    ``title`` says what is seen, ``samples`` who the points are ("answers to questions unseen ...").

    Raises:
        ValueError: there are no embeddings.
    """
    if not embeddings:
        raise ValueError("no embeddings; expected one for each panel")
    n_rows = -(-len(embeddings) // 2)
    figure = style.new_figure(8.2, 3.5 * n_rows + 0.9)
    panels = figure.subplots(n_rows, 2, squeeze=False).ravel()
    for axes, embedding in zip(panels, embeddings, strict=False):
        _draw(axes, embedding)
    for axes in panels[len(embeddings) :]:
        axes.set_visible(False)
    style.figure_title(figure, f"{title} (each point one of the {samples})")
    style.legend_below(figure, panels[: len(embeddings)], 2)
    return figure


def _draw(axes: Axes, embedding: Embedding) -> None:
    looks = ((1, "aligned", style.BLUE, "o"), (0, "violating", style.VERMILLION, "^"))
    for label, name, color, marker in looks:
        mine: Bool[np.ndarray, "point"] = embedding.labels == label
        axes.scatter(
            embedding.points[mine, 0],
            embedding.points[mine, 1],
            s=16,
            color=color,
            marker=marker,
            alpha=0.65,
            linewidth=0,
            label=f"{name} answer",
        )
    n, total = len(embedding.points), embedding.n_samples
    count = f"n = {n}" if n == total else f"n = {n} of {total}"
    style.label_axes(axes, "t-SNE 1 (no unit)", "t-SNE 2 (no unit)", f"{embedding.title}\n{count}")
    axes.set_xticks([])
    axes.set_yticks([])
