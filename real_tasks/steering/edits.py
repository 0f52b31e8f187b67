"""Edits: what is done to activations, where, how strongly, when and at which positions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.gates import FittedGate
from real_tasks.steering.operators import OPERATORS, Operator
from real_tasks.vocabulary.scopes import PromptEnds, Scope
from real_tasks.vocabulary.types import ModuleId, ModuleKind

IN_A_BLOCK: tuple[ModuleKind, ...] = (
    "residual_in", "head", "attention", "residual_mid", "neuron", "mlp", "layer", "final",
)  # fmt: skip
"""The parts in the order in which a forward pass reaches them; the last one follows all blocks."""


@dataclass(frozen=True, eq=False)
class Edit:
    """One operator at modules of one part of the network.

    Attributes:
        modules: the sites, all of one part and equally wide.
        tensors: the operator's, one row a module.
        weights: by which each module's strength differs from the common one.
        operator: what is done.
        scope: the positions at which it is done.
        gate: when it is done; always without.
        keep_norm: whether activations are brought back to the length that they had.
    """

    modules: tuple[ModuleId, ...]
    tensors: Mapping[str, Float[Tensor, "module ..."]]
    weights: Float[Tensor, "module"]
    operator: Operator = field(default_factory=lambda: OPERATORS.made("add", {}))
    scope: Scope = "all"
    gate: FittedGate | None = None
    keep_norm: bool = False

    @property
    def kind(self) -> ModuleKind:
        """The part of the network."""
        return self.modules[0].kind

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that it touches, the first first."""
        return tuple(sorted({module.layer for module in self.modules}))

    def at(self, layer: int) -> "Edit":
        """Return the edit of one layer's modules alone."""
        return self.only([i for i, module in enumerate(self.modules) if module.layer == layer])

    def only(self, rows: Sequence[int]) -> "Edit":
        """Return the edit of some of its modules."""
        return replace(
            self,
            modules=tuple(self.modules[row] for row in rows),
            tensors={name: tensor[list(rows)] for name, tensor in self.tensors.items()},
            weights=self.weights[list(rows)],
        )

    def displacement(self, strength: float) -> Float[Tensor, "module d"] | None:
        """Return what is added wherever it acts; None where that depends on the activations."""
        if self.keep_norm:
            return None
        # The order of the products is that in which results were published; keep it.
        return self.operator.displacement(self.tensors, strength * self.weights)


@dataclass(frozen=True, eq=False)
class Intervention:
    """Edits at a strength, in the order in which they are done where they meet.

    Attributes:
        edits: at least one.
        strength: the one number by which all of them are scaled; see `Operator.unit`.
    """

    edits: tuple[Edit, ...]
    strength: float = 1.0

    @classmethod
    def adding(
        cls,
        displacement: Mapping[int, Float[Tensor, "width"]],
        scope: Scope = "all",
        kind: ModuleKind = "head",
    ) -> "Intervention":
        """Return what adds a vector to the whole part of each of some layers.

        For ``head`` a vector is as wide as the input of ``o_proj``, heads one after another.
        """

        def pushed(layer: int, vector: Tensor) -> Edit:
            one = torch.ones(1).to(vector)
            tensors = {"direction": vector[None], "scale": one}
            return Edit((ModuleId(kind, layer),), tensors, one, scope=scope)

        return cls(tuple(pushed(layer, vector) for layer, vector in displacement.items()))

    @classmethod
    def together(cls, parts: Sequence["Intervention"]) -> "Intervention | None":
        """Return what does several interventions at once, the first first; None if nothing."""
        edits = tuple(
            replace(edit, weights=part.strength * edit.weights)
            for part in parts
            if not part.is_identity
            for edit in part.edits
        )
        return cls(edits) if edits else None

    @property
    def scope(self) -> Scope:
        """``all`` where every edit is done at every position, else the first other scope."""
        return next((edit.scope for edit in self.edits if edit.scope != "all"), "all")

    @property
    def is_identity(self) -> bool:
        """Whether nothing is done at all."""
        return self.strength == 0

    def first_layer(self, n_layers: int) -> int:
        """Return the first layer that an edit touches or a gate reads; ``n_layers`` if none is."""
        if self.is_identity:
            return n_layers
        touched = {(layer, edit.kind) for edit in self.edits for layer in edit.layers}
        gates = [edit.gate.gate for edit in self.edits if edit.gate]
        touched |= {(site.layer, site.kind) for gate in gates for site in gate.reads}
        return min(n_layers if kind == "final" else layer for layer, kind in touched)

    @property
    def shares_prompts(self) -> bool:
        """Whether the beginning of a prompt may be read before the rest of it is known."""
        # At least one token of every prompt is left to be read later, its last one.
        told = ("all", "generated", "last", PromptEnds(last=1))
        return all(e.scope in told and not (e.gate and e.gate.gate.once) for e in self.edits)


def in_order(edits: Sequence[Edit]) -> list[tuple[int, ModuleKind]]:
    """Return the places, layer and part, that edits touch, as a forward pass reaches them."""
    found = {(layer, edit.kind) for edit in edits for layer in edit.layers}
    return sorted(found, key=place)


def place(where: tuple[int, ModuleKind]) -> tuple[int, int]:
    """Return what orders places by when a forward pass reaches them."""
    layer, kind = where
    return (layer if kind != "final" else 10**9, IN_A_BLOCK.index(kind))
