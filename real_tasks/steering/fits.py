"""Whether edits fit a model, and what they add to a layer of it."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.models.families import check_kind
from real_tasks.models.places import model_shape
from real_tasks.steering.edits import Edit, Intervention, place
from real_tasks.vocabulary.errors import OverflowedError, UserInputError
from real_tasks.vocabulary.types import PARTED, ModelShape, ModuleKind

LONGEST = 1e15
"""Length up to which a displacement can be computed with: norms square what a layer gets, float32
ends at 3e38, and layers may yet multiply it by a thousand."""
UNIT_TOLERANCE = 1e-3
"""By which inner products of unit vectors may be off; what float16 rounds is below it."""


def check_fits(model: PreTrainedModel, intervention: Intervention) -> None:
    """Check that an intervention fits a model.

    Raises:
        UserInputError: a layer or part that the model does not have, another width, or a gate that
            reads behind its edit.
        OverflowedError: NaN or infinity, in the model's type too, or longer than `LONGEST`.
    """
    shape = model_shape(model)
    for edit in intervention.edits:
        check_kind(model.config, edit.kind)
        check_edit(edit, shape)
        for layer in edit.layers:
            _check_numbers(edit.at(layer), layer, intervention.strength, model.dtype, shape)


def check_edit(edit: Edit, shape: ModelShape) -> None:
    """Check that an edit fits models of a shape.

    Raises:
        UserInputError: it does not.
    """
    for module in edit.modules:
        if not 0 <= module.layer < shape.n_layers_of(edit.kind):
            raise UserInputError(
                f"the intervention steers layer {module.layer}, but the model has layers 0 to "
                f"{shape.n_layers_of(edit.kind) - 1}; use the model that the intervention was made "
                "for"
            )
    if edit.operator.writes:
        _check_writes(edit)
    sizes = {"d_model": shape.d_model}
    for name, axes in edit.operator.needs.items():
        _check_tensor(edit, name, axes.split(), shape)
        for axis, size in zip(axes.split(), edit.tensors[name].shape[1:], strict=True):
            expected = sizes.setdefault(axis, int(axis) if axis.isdigit() else size)
            if size != expected:
                raise UserInputError(f"{name} with {size} along its axis {axis}, not {expected}")
    for name in edit.operator.unit_length:
        _check_unit(edit, name)
    _check_gate(edit, shape)


def _check_writes(edit: Edit) -> None:
    if edit.kind not in PARTED:
        raise UserInputError(
            f"{edit.operator.formula} changes what modules write by columns of their own; found "
            f"{edit.modules[0].label}, expected modules of the kinds {', '.join(PARTED)}"
        )
    if edit.keep_norm:
        raise UserInputError(
            f"{edit.operator.formula} leaves the activation as it is, so that keep_norm has no "
            "meaning; leave keep_norm out"
        )


def _check_unit(edit: Edit, name: str) -> None:
    found = edit.tensors[name].double()
    vectors = found if found.dim() == 3 else found[:, None]
    off = vectors @ vectors.mT - torch.eye(vectors.shape[1]).to(vectors)
    if (off.abs() > UNIT_TOLERANCE).any():
        raise UserInputError(
            f"{edit.operator.formula}: {name} is to hold unit vectors, orthogonal where a module "
            f"has several; found lengths of {vectors.norm(dim=-1).min():.4g} to "
            f"{vectors.norm(dim=-1).max():.4g}; divide them by their lengths (and make them "
            "orthogonal)"
        )


def _check_tensor(edit: Edit, name: str, axes: list[str], shape: ModelShape) -> None:
    if name not in edit.tensors:
        raise UserInputError(f"{edit.operator.formula} needs the tensor {name!r}, which is missing")
    found = list(edit.tensors[name].shape)
    if found[:1] != [len(edit.modules)]:
        raise UserInputError(f"{name} of shape {found}, expected {len(edit.modules)} rows")
    for module in edit.modules:
        width = shape.width(module)
        pairs = zip(axes, found[1:], strict=False)
        if len(found) != 1 + len(axes) or any(axis == "d" and n != width for axis, n in pairs):
            heads = f" ({shape.n_heads} heads of {shape.head_dim})" if edit.kind == "head" else ""
            raise UserInputError(
                f"layer {module.layer}: {name} of shape {found[1:]} for {_SITES[edit.kind]} of "
                f"[{width}]{heads}; use the model that the intervention was made for"
            )


def _check_gate(edit: Edit, shape: ModelShape) -> None:
    if edit.gate is None:
        return
    gate, tensors = edit.gate.gate, edit.gate.tensors
    along = {name: tensors[name].shape[-1] for name, axes in gate.needs.items() if axes == "d"}
    first = min(place((layer, edit.kind)) for layer in edit.layers)
    for site in gate.reads:
        if not shape.has(site):
            raise UserInputError(f"a gate reads {site.label}, which the model does not have")
        if place((site.layer, site.kind)) > first:
            raise UserInputError(
                f"a gate reads {site.label}, which lies behind {edit.modules[0].label}, where its "
                "edit acts; let it read an earlier place"
            )
        for name, width in along.items():
            if width != shape.width(site):
                raise UserInputError(
                    f"a gate reads {site.label}, of width {shape.width(site)}, along a {name} of "
                    f"width {width}; let it read a part that is as wide"
                )


def _check_numbers(
    edit: Edit, layer: int, strength: float, dtype: torch.dtype, shape: ModelShape
) -> None:
    tensors = [strength * edit.weights, *edit.tensors.values()]
    is_constant = edit.displacement(strength) is not None
    if is_constant:
        tensors.append(layer_displacement(edit, strength, shape))
    if not all(tensor.isfinite().all() for tensor in tensors):
        what = "displacement holds" if is_constant else "tensors of the edit hold"
        raise OverflowedError(
            f"layer {layer}: the {what} NaN or infinity at strength {strength:g}; steer less (a "
            "smaller alpha), or make it again if no strength will do"
        )
    if not is_constant:
        return
    rounded = tensors[-1].to(dtype)
    if not rounded.isfinite().all() or rounded.double().norm() > LONGEST:
        raise OverflowedError(
            f"layer {layer}: a displacement of length {float(tensors[-1].double().norm()):g}, too "
            f"long to be computed with in {str(dtype).removeprefix('torch.')}; steer less (a "
            "smaller alpha)"
        )


def layer_displacement(edit: Edit, strength: float, shape: ModelShape) -> Float[Tensor, "width"]:
    """Return what an edit of one layer adds to its whole part."""
    vectors = edit.displacement(strength)
    assert vectors is not None
    whole = vectors.new_zeros(shape.part_width(edit.kind))
    for module, vector in zip(edit.modules, vectors, strict=True):
        whole[shape.span(module)] = vector
    return whole


_SITES: dict[ModuleKind, str] = {
    "head": "an o_proj input",
    "attention": "an o_proj output",
    "layer": "the output of a decoder layer",
    "mlp": "the output of an MLP",
    "neuron": "the input of an MLP's last projection",
    "residual_in": "the input of a decoder layer",
    "residual_mid": "the residual stream after the attention",
    "final": "the output of the last norm",
}
