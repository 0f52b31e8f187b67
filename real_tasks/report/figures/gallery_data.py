"""What the pictures of an experiment are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from real_tasks.report.figures.latents import Embedding
from real_tasks.results.summary import Row


@dataclass(frozen=True)
class CodebookCounts:
    """Use of codes of each module in one fold and seed, see `codebook_use`."""

    counts: Int[np.ndarray, "module code"]
    perplexity: Float[np.ndarray, "module"]
    collapsed: Bool[np.ndarray, "module"]
    names: Sequence[str]


@dataclass(frozen=True)
class GalleryData:
    """What pictures are drawn from; what is empty or None has no picture.

    Attributes:
        module_scores: rows of the view ``module_scores``, with the localizer's own ``score`` too.
        selected: rows of the view ``selected_modules``.
        curves: wide rows over doses of each method, see `effect_against_kl`.
        tuned: wide rows of the chosen settings, on the same questions as ``curves``.
        unsteered: metrics of the unsteered model on the same questions.
        curve_questions: which questions those are.
        max_kl: cap on KL, nats/token.
        matched_kl: KL at which methods are compared like for like, nats/token.
        comparisons: rows of differences between methods, see `difference_forest`.
        embeddings: t-SNE panels: best head above worst, activations beside code latents.
        embedded_samples: who the points of those panels are.
        codebooks: the use of codes.
        main: the localizer under study.
        rival: the one that it is compared with.
    """

    module_scores: Sequence[Row] = ()
    selected: Sequence[Row] = ()
    curves: Sequence[Row] = ()
    tuned: Sequence[Row] = ()
    unsteered: Mapping[str, float] = field(default_factory=dict)
    curve_questions: str = "validation questions"
    max_kl: float = 0.05
    matched_kl: float | None = None
    comparisons: Sequence[Row] = ()
    embeddings: Sequence[Embedding] = ()
    embedded_samples: str = "answers to questions unseen by the encoder"
    codebooks: CodebookCounts | None = None
    main: str = "real"
    rival: str = "iti"
