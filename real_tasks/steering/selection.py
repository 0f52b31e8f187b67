"""Which modules are steered, and how strongly each."""

import math
from collections.abc import Sequence
from typing import Literal

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId, ModuleScore, SelectedModule


def ranked(scores: Sequence[ModuleScore]) -> list[ModuleScore]:
    """Return the scores best first; ties by (layer, head).

    Raises:
        UserInputError: a score is not a number.
    """
    for score in scores:
        if not math.isfinite(score.score):
            raise UserInputError(f"the score of {score.module} is {score.score}, expected a number")
    return sorted(scores, key=lambda score: (-score.score, score.module))


def best_modules(scores: Sequence[ModuleScore], top_k: int) -> set[ModuleId]:
    """Return the modules that candidates of up to ``top_k`` steer."""
    return {score.module for score in ranked(scores)[:top_k]}


def select(
    scores: Sequence[ModuleScore], top_k: int, weighting: Literal["score", "equal"]
) -> tuple[SelectedModule, ...]:
    """Return the ``top_k`` best modules with strength score / best score, or 1 (method, section 5).

    Raises:
        UserInputError: there are fewer modules than ``top_k``.
    """
    if top_k > len(scores):
        raise UserInputError(
            f"top_k is {top_k}, but the model has {len(scores)} modules; choose a smaller "
            "evaluation.top_k"
        )
    best = ranked(scores)[:top_k]
    largest = best[0].score
    return tuple(
        SelectedModule(
            module=score.module,
            rank=rank,
            score=score.score,
            strength=score.score / largest if weighting == "score" else 1.0,
        )
        for rank, score in enumerate(best, start=1)
    )
