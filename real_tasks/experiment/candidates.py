"""Candidate steering specs of a method: one for each K of the grid, before alpha is chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.experiment.methods import Method
from real_tasks.steering.edits import Edit
from real_tasks.steering.operators import OPERATORS
from real_tasks.steering.selection import select
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.types import ModelShape, ModuleId, ModuleScore, SelectedModule


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

    `tensors` are those of all modules of the method's kind; `weights` tells the model by its
    weights (`real_tasks.models.identity`).
    """

    method: Method
    model: str
    model_digest: str
    weights: str
    shape: ModelShape
    tensors: Mapping[str, Float[Tensor, "layer module ..."]]
    provenance: dict[str, Any]

    def spec(self, selected: Sequence[SelectedModule], alpha: float = 1.0) -> SteeringSpec:
        """Return the spec that steers the selected modules."""
        edits = [self._edit(tuple(item.module for item in selected), selected)]
        if self.method.where == "writers":
            edits = [
                self._edit(modules, [item] * len(modules))
                for item in selected
                for modules in writers(self.shape)
            ]
        return SteeringSpec(
            model=self.model,
            model_digest=self.model_digest,
            weights=self.weights,
            edits=tuple(edits),
            alpha=alpha,
            shape=self.shape,
            provenance=self.provenance,
        )

    def _edit(self, modules: tuple[ModuleId, ...], fitted: Sequence[SelectedModule]) -> Edit:
        """Return the edit of modules by what was fitted to others, as many."""
        layers = [item.module.layer for item in fitted]
        places = [max(item.module.head, 0) for item in fitted]
        operator = OPERATORS.made(self.method.operator.name, self.method.operator.params)
        return Edit(
            modules=modules,
            tensors={name: self.tensors[name][layers, places] for name in operator.needs},
            weights=torch.tensor([item.strength for item in fitted]),
            operator=operator,
            scope=self.method.scope,
            keep_norm=self.method.keep_norm,
        )


def writers(shape: ModelShape) -> list[tuple[ModuleId, ...]]:
    """Return what writes to the residual stream: the embedding, all attentions and all MLPs."""
    return [
        (ModuleId("residual_in", 0),),
        shape.modules("attention"),
        shape.modules("mlp"),
    ]
