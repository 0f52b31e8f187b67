"""Candidate steering specs of a method: one for each K of the grid, before alpha is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.methods import Method
from real_tasks.selection import select
from real_tasks.steering import SteeringSpec
from real_tasks.types import ModelShape, ModuleId, ModuleScore, SelectedModule, TokenScope


def candidate_selections(
    method: Method,
    scores: Sequence[ModuleScore] | None,
    shape: ModelShape,
    top_k: Sequence[int],
) -> dict[int, tuple[SelectedModule, ...]]:
    """Return the modules to steer for every K; all of them, equally, without scores."""
    if scores is not None:
        return {k: select(scores, k, method.weighting) for k in sorted(set(top_k))}
    modules = [
        ModuleId("head", layer, head)
        for layer in range(shape.n_layers)
        for head in range(shape.n_heads)
    ]
    everything = (SelectedModule(module, i, None, 1.0) for i, module in enumerate(modules, start=1))
    return {len(modules): tuple(everything)}


@dataclass(frozen=True)
class SpecTemplate:
    """What the candidates of a method have in common.

    `directions` and `sigmas` are those of all heads of the model.
    """

    model: str
    model_digest: str
    directions: Float[Tensor, "layer head d_head"]
    sigmas: Float[Tensor, "layer head"]
    token_scope: TokenScope
    provenance: dict[str, Any]

    def spec(self, selected: Sequence[SelectedModule], alpha: float = 1.0) -> SteeringSpec:
        """Return the spec that steers the selected modules."""
        layers = [item.module.layer for item in selected]
        heads = [item.module.head for item in selected]
        return SteeringSpec(
            model=self.model,
            model_digest=self.model_digest,
            modules=tuple(item.module for item in selected),
            directions=self.directions[layers, heads],
            sigmas=self.sigmas[layers, heads],
            strengths=torch.tensor([item.strength for item in selected]),
            alpha=alpha,
            token_scope=self.token_scope,
            n_heads=self.directions.shape[1],
            head_dim=self.directions.shape[2],
            provenance=self.provenance,
        )
