"""Gates: when an edit acts, and how strongly, by what has been seen so far; a file each.

A gate is a subclass of `Gate` registered by ``@GATES.register("name")``. An edit without a gate
always acts. Where a gate says 0 it is closed, and activations stay as they are, bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from real_tasks.steering.positions import Positions
from real_tasks.vocabulary.config import Configured
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import ModuleId


@dataclass(frozen=True)
class Seen:
    """What a gate may decide on, of the present forward pass.

    Attributes:
        input_ids: token ids; None where the model was given embeddings.
        in_prompt: which positions are a token of their row's prompt; all others are padding or
            follow the prompt.
        activations: of the sites that the gate reads, as they are before the gate's edit.
    """

    input_ids: Int[Tensor, "row position"] | None
    in_prompt: Bool[Tensor, "row position"]
    activations: Mapping[ModuleId, Float[Tensor, "row position d"]]


@dataclass(frozen=True)
class GateInput:
    """What a gate is fitted to; never a test question.

    Attributes:
        opening: activations of the prompts that are to open it, at the input of every layer: the
            means over all tokens but the first, or those of the last where the gate says `at_end`.
        closing: of texts that are not.
        layers: where it may read, so that it does not read behind the edit that it opens.
    """

    opening: Float[Tensor, "sample layer d"]
    closing: Float[Tensor, "sample layer d"]
    layers: tuple[int, ...]

    def check(self, layers: Iterable[int]) -> None:
        """Check that a gate may read the inputs of some layers.

        Raises:
            UserInputError: it may not.
        """
        behind = [layer for layer in layers if layer not in self.layers]
        if behind:
            raise UserInputError(
                f"a gate is to read the input of layer {behind[0]}, but its edit acts in layer "
                f"{self.layers[-1]}; let it read that one's input or an earlier one's, or leave "
                "the layer to the gate"
            )


class Gate(Configured, ABC):
    """Says how strongly an edit acts, from 0 (closed) to 1 (open; more where it doses).

    Attributes:
        needs: its tensors, each with its axes, as ``"d"`` or ``""``.
        once: whether it decides on the prompt, and keeps to that for all that is generated after.
        at_end: whether it is fitted to texts' last tokens, not to the means over all of them.
        of_module: whether there is one for each module, `placed` at it, whose tensors are the
            operator's own.
        label: what people read.
    """

    needs: ClassVar[Mapping[str, str]] = {}
    once: ClassVar[bool] = False
    at_end: ClassVar[bool] = False
    of_module: ClassVar[bool] = False
    label: ClassVar[str] = ""

    @property
    def reads(self) -> tuple[ModuleId, ...]:
        """The sites whose activations it needs; none of them behind the edit that it opens."""
        return ()

    def fit(self, data: GateInput) -> tuple[Self, dict[str, Tensor]]:  # noqa: ARG002
        """Return the gate with what it leaves open decided, and its tensors."""
        return self, {}

    def placed(self, site: ModuleId) -> Self:  # noqa: ARG002
        """Return the gate of a module, where there is one for each."""
        return self

    @abstractmethod
    def strength(
        self, seen: Seen, tensors: Mapping[str, Tensor]
    ) -> Float[Tensor, "row #position"] | Float[Tensor, "row #position layer"]:
        """Return how strongly the edit acts, in every layer of the model where these differ.

        Where it decides once there is one position.
        """


GATES: Registry[Gate] = Registry("gate", "real_tasks.steering.gates", Gate)


@dataclass(frozen=True, eq=False)
class FittedGate:
    """A gate with its tensors."""

    gate: Gate
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Decision:
    """What a gate says in the present pass, and what it said on the prompt; of one context."""

    def __init__(
        self, fitted: FittedGate, positions: Positions, lengths: Int[Tensor, "row"] | None
    ) -> None:
        self._fitted = fitted
        self._positions = positions
        self._lengths = lengths
        self._number = -1
        self._said: Tensor
        self._activations: dict[ModuleId, Tensor] = {}

    def note(self, site: ModuleId, span: slice, part: Float[Tensor, "row position width"]) -> None:
        """Take what a site that the gate reads, a span of its part, has in the present pass."""
        self._activations[site] = part[..., span]

    def strength(self, layer: int) -> Float[Tensor, "row #position"]:
        """Return the strength in a layer, in the present pass; worked out once a pass, or a prompt.

        Raises:
            UserInputError: a gate that decides on the prompt has to decide before it was read
                whole, or is asked for other rows than it decided on.
        """
        positions, gate = self._positions, self._fitted.gate
        if self._number != positions.number:
            if gate.once and not positions.fresh:
                self._check_kept(len(positions.inputs))
            else:
                self._said = gate.strength(self._seen(), self._placed(positions.inputs.device))
            self._number = positions.number
        return self._said[..., layer] if self._said.dim() == 3 else self._said

    @property
    def kept(self) -> Float[Tensor, "row one *layer"] | None:
        """What was decided on the prompts; None where each pass is decided anew."""
        return self._said if self._fitted.gate.once else None

    def keep(self, said: Float[Tensor, "row one *layer"]) -> None:
        """Go on with rows whose prompts were read in other batches, by what was decided there."""
        self._said, self._number = said, self._positions.number

    def _check_kept(self, n_rows: int) -> None:
        if self._number < 0 or len(self._said) != n_rows:
            raise UserInputError(
                "a gate decides on the prompt, but a cache came in whose prompt was read outside "
                "of this context, or for other rows; read prompt and continuation within one "
                "applied(), or call model.generate"
            )

    def _seen(self) -> Seen:
        positions = self._positions
        read = positions.n_cached + positions.inputs.shape[1]
        if self._fitted.gate.once and (positions.prompt_width or 0) > read:
            raise UserInputError(
                "a gate decides on the prompt, but the prompt is read in pieces; leave out "
                "generate's prefill_chunk_size"
            )
        ids = positions.inputs if not positions.inputs.is_floating_point() else None
        device = positions.inputs.device
        activations = {site: values.to(device) for site, values in self._activations.items()}
        return Seen(ids, positions.in_prompt(self._lengths), activations)

    def _placed(self, device: torch.device) -> dict[str, Tensor]:
        return {name: tensor.to(device) for name, tensor in self._fitted.tensors.items()}
