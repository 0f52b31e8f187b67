"""Candidate steering specs of a method: one for each K of the grid, before alpha is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.experiment.methods import Method
from real_tasks.steering.selection import select
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.types import ModelShape, ModuleScore, SelectedModule, TokenScope


def candidate_selections(
    method: Method, scores: Sequence[ModuleScore] | None, shape: ModelShape
) -> dict[int, tuple[SelectedModule, ...]]:
    """Return the modules to steer for every K; all of them, equally, without scores."""
    if scores is not None:
        return {k: select(scores, k, method.weighting) for k in sorted(set(method.top_k))}
    modules = shape.modules(method.kind)
    everything = (SelectedModule(module, i, None, 1.0) for i, module in enumerate(modules, start=1))
    return {len(modules): tuple(everything)}


@dataclass(frozen=True)
class SpecTemplate:
    """What the candidates of a method have in common.

    `directions` and `sigmas` are those of all modules of the method's kind; `weights` tells the
    model by its weights (`real_tasks.models.identity`).
    """

    model: str
    model_digest: str
    weights: str
    shape: ModelShape
    directions: Float[Tensor, "layer module d"]
    sigmas: Float[Tensor, "layer module"]
    token_scope: TokenScope
    provenance: dict[str, Any]

    def spec(self, selected: Sequence[SelectedModule], alpha: float = 1.0) -> SteeringSpec:
        """Return the spec that steers the selected modules."""
        layers = [item.module.layer for item in selected]
        places = [max(item.module.head, 0) for item in selected]
        return SteeringSpec.adding(
            model=self.model,
            model_digest=self.model_digest,
            weights=self.weights,
            modules=tuple(item.module for item in selected),
            directions=self.directions[layers, places],
            sigmas=self.sigmas[layers, places],
            strengths=torch.tensor([item.strength for item in selected]),
            alpha=alpha,
            token_scope=self.token_scope,
            shape=self.shape,
            provenance=self.provenance,
        )
