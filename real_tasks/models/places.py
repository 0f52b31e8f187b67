"""Where the parts of a loaded model are read and steered, and its shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from real_tasks.models.families import ModelFamily, check_kind, configured_shape, family_of, part_of
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleKind


@dataclass(frozen=True)
class Place:
    """Where the numbers of a part pass by in one layer.

    Attributes:
        module: the network's own module.
        side: whether they are what the module reads or what it puts out; ``write``: what it puts
            out, seen together with what it reads.
        also_output_of: what else must get the same change where the numbers are changed: between
            attention and feed-forward the residual stream goes on beside ``module``, and comes out
            of the decoder layer.
    """

    module: nn.Module
    side: Literal["input", "output", "write"]
    also_output_of: nn.Module | None = None

    def hook(self, seen: Callable[..., Tensor | None]) -> RemovableHandle:
        """Call ``seen`` with the numbers at every forward pass.

        Args:
            seen: gets ``[row, position, width]``, and of the side ``write`` what the module reads
                after it; what it returns is taken instead, None leaves them as they are.
                ``also_output_of`` is not looked after.
        """
        if self.side == "output":
            return hook_output(self.module, seen)
        if self.side == "write":
            return self.module.register_forward_hook(lambda _, args, out: seen(out, args[0]))

        def of_input(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            found = seen(args[0])
            return None if found is None else (found, *args[1:])

        return self.module.register_forward_pre_hook(of_input)


def hook_output(module: nn.Module, seen: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call ``seen`` with what a module puts out; what it returns, unless None, is taken instead.

    Of a module that puts out a tuple it is the first.
    """

    def of_output(_module: nn.Module, _args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return seen(output)
        found = seen(output[0])
        return None if found is None else (found, *output[1:])

    return module.register_forward_hook(of_output)


def places(model: PreTrainedModel, kind: ModuleKind) -> list[Place]:
    """Return, first layer first, where a part is read and steered; `ModuleKind` says what it is.

    Raises:
        UserInputError: the architecture has no such part.
    """
    check_kind(model.config, kind)
    family = family_of(model.config)
    if kind == "final":
        return [Place(part_of(model, family.final_norm), "output")]
    layers = list(cast(nn.ModuleList, part_of(model, family.layers)))
    if kind == "residual_mid":
        return [Place(part_of(layer, str(family.mid)), "input", layer) for layer in layers]
    path, side = _PATHS[kind](family)
    return [Place(part_of(layer, path), side) for layer in layers]


_PATHS: dict[ModuleKind, Callable[[ModelFamily], tuple[str, Literal["input", "output"]]]] = {
    "head": lambda family: (family.o_proj, "input"),
    "attention": lambda family: (family.o_proj, "output"),
    "mlp": lambda family: (family.mlp, "output"),
    "neuron": lambda family: (str(family.down_proj), "input"),
    "residual_in": lambda _: ("", "input"),
    "layer": lambda _: ("", "output"),
}
"""By kind, the path from a decoder layer and the side."""


def sites(model: PreTrainedModel, kind: ModuleKind) -> list[nn.Module]:
    """Return the modules of `places`, first layer first."""
    return [place.module for place in places(model, kind)]


def output_projections(model: PreTrainedModel) -> list[nn.Module]:
    """Return every layer's attention output projection, first layer first."""
    return sites(model, "head")


def projection_weight(projection: nn.Module) -> Float[Tensor, "d_out d_in"]:
    """Return a projection's weight so that the output is ``weight @ input + bias``.

    GPT-2's `Conv1D` keeps it the other way round.
    """
    weight = projection.get_parameter("weight")
    return weight.T if isinstance(projection, Conv1D) else weight


def model_shape(model: PreTrainedModel) -> ModelShape:
    """Return the model's shape, its configuration's checked against its weights.

    Raises:
        UserInputError: heads times head_dim is not the width of an o_proj's input, or the number of
            neurons not that of a down_proj's.
    """
    family, shape = family_of(model.config), configured_shape(model.config)
    projections = output_projections(model)
    heads = f"{shape.n_heads} heads of {shape.head_dim} = {shape.part_width('head')}"
    _check_inputs(projections, "o_proj", heads, "num_attention_heads or head_dim")
    if family.down_proj is not None:
        neurons = f"{shape.d_mlp} neurons = {shape.d_mlp}"
        _check_inputs(sites(model, "neuron"), "down_proj", neurons, family.d_mlp)
    return replace(shape, n_layers=len(projections))


def _check_inputs(projections: Sequence[nn.Module], name: str, stated: str, field: str) -> None:
    width = int(stated.rpartition(" = ")[2])
    for layer, projection in enumerate(projections):
        weight = projection_weight(projection)
        # Quantised weights are packed in shapes of their own.
        d_in = weight.shape[1] if weight.is_floating_point() else projection.in_features
        if d_in != width:
            raise UserInputError(
                f"layer {layer}: the input of {name} has {d_in} numbers, but the configuration "
                f"says {stated}; correct {field} in config.json"
            )
