"""Candidate steering specs of a method: one for each K of the grid, before alpha is chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.experiment.methods.method import Method
from real_tasks.models.families import WRITING
from real_tasks.steering.edits import Edit
from real_tasks.steering.gates import GATES, FittedGate, Gate, GateInput
from real_tasks.steering.operators import OPERATORS, Operator
from real_tasks.steering.selection import select
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import (
    ModelShape,
    ModuleId,
    ModuleKind,
    ModuleScore,
    SelectedModule,
)

WRITERS: tuple[ModuleKind, ...] = ("residual_in", *WRITING)
"""Kinds of what writes to the residual stream: the embedding, attentions, MLPs."""


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

    `tensors` are those of all modules of the method's kind, or one for all of a layer; `weights`
    tells the model by its weights (`real_tasks.models.identity`); `prompts` are what its gate is
    fitted to, if it has one; `gains` are the model's `write_gains`.
    """

    method: Method
    model: str
    model_digest: str
    weights: str
    shape: ModelShape
    tensors: Mapping[str, Float[Tensor, "layer module ..."]]
    provenance: dict[str, Any]
    prompts: GateInput | None = None
    gains: Mapping[ModuleId, Float[Tensor, "d_model"]] = field(default_factory=dict)

    def spec(self, selected: Sequence[SelectedModule], alpha: float = 1.0) -> SteeringSpec:
        """Return the spec that steers the selected modules."""
        own = tuple(item.module for item in selected)
        targets: list[tuple[tuple[ModuleId, ...], Sequence[SelectedModule]]] = [(own, selected)]
        if self.method.where == "writers":
            places = writers(self.shape)
            targets = [(there, [item] * len(there)) for item in selected for there in places]
        edits = [edit for modules, fitted in targets for edit in self._edits(modules, fitted)]
        return SteeringSpec(
            model=self.model,
            model_digest=self.model_digest,
            weights=self.weights,
            edits=self._behind_a_gate(edits),
            alpha=alpha,
            shape=self.shape,
            provenance=self.provenance,
        )

    def _edits(self, modules: tuple[ModuleId, ...], fitted: Sequence[SelectedModule]) -> list[Edit]:
        """Return the edit of modules by what was fitted to others, as many; or one for each."""
        operator = OPERATORS.made(self.method.operator.name, self.method.operator.params)
        acting = operator.acting(self.tensors)
        if acting is not None:
            pairs = list(zip(modules, fitted, strict=True))
            kept = [(own, item) for own, item in pairs if acting[_place(item.module)]]
            # A spec has an edit, also where it does nothing.
            modules, fitted = zip(*(kept or pairs[:1]), strict=True)
        rows = self._rows(fitted)
        tensors = {name: rows[name] for name in operator.needs}
        edit = Edit(
            modules=modules,
            tensors=self._before_norms(modules, operator, tensors),
            weights=torch.tensor([item.strength for item in fitted]),
            operator=operator,
            scope=self.method.scope,
            keep_norm=self.method.keep_norm,
        )
        gate = self._gate()
        if gate is None or not gate.of_module:
            return [edit]
        return [
            replace(edit.only([row]), gate=FittedGate(gate.placed(module), own))
            for row, module in enumerate(modules)
            for own in [{name: rows[name][row] for name in gate.needs}]
        ]

    def _rows(self, fitted: Sequence[SelectedModule]) -> dict[str, Float[Tensor, "module ..."]]:
        n_modules = self.shape.modules_per_layer(self.method.kind)
        layers, places = map(list, zip(*(_place(item.module) for item in fitted), strict=True))
        return {
            name: tensor.expand(-1, n_modules, *tensor.shape[2:])[layers, places]
            for name, tensor in self.tensors.items()
        }

    def _before_norms(
        self, modules: tuple[ModuleId, ...], operator: Operator, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return an edit's tensors, where a norm follows those by which the stream is met.

        What lacks the direction ``gain * v`` when it goes into a norm lacks v when it comes out.
        """
        if self.method.where != "writers" or modules[0] not in self.gains:
            return tensors
        if tensors.keys() != set(operator.unit_length) or tensors.keys() != {"direction"}:
            raise UserInputError(
                f"the method {self.method.name!r}: in this model a norm stands between what "
                f"attention and MLP put out and the residual stream, and {operator.formula} there "
                "does something else in the stream; expected project_out: choose it, or where: "
                "selected"
            )
        gains = torch.stack([self.gains[module] for module in modules])
        return {"direction": normalize(gains * tensors["direction"], dim=-1)}

    def _behind_a_gate(self, edits: Sequence[Edit]) -> tuple[Edit, ...]:
        """Return the edits behind the one gate of all, if the method has such a one."""
        gate = self._gate()
        if gate is None or gate.of_module:
            return tuple(edits)
        assert self.prompts is not None, "the prompts that a gate is fitted to are missing"
        first = min(edit.layers[0] for edit in edits)
        gate, tensors = gate.fit(replace(self.prompts, layers=self.prompts.layers[: first + 1]))
        fitted = FittedGate(gate, tensors)
        return tuple(replace(edit, gate=fitted) for edit in edits)

    def _gate(self) -> Gate | None:
        gate = self.method.gate
        return None if gate is None else GATES.made(gate.name, gate.params)


def _place(module: ModuleId) -> tuple[int, int]:
    """Return where a module's tensors are: its layer, and its place there."""
    return module.layer, max(module.head, 0)


def writers(shape: ModelShape) -> list[tuple[ModuleId, ...]]:
    """Return what writes to the residual stream, of each of `WRITERS`; the embedding is one."""
    return [shape.modules(kind) if kind != WRITERS[0] else (ModuleId(kind, 0),) for kind in WRITERS]
