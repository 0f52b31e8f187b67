"""Edits written into the weights of the projections before and behind their sites.

Where an edit maps what a projection puts out, ``y = W x + b``, to ``A y + a``, the projection may
as well have the weight ``A W`` and the bias ``A b + a``; where it maps so what the projection
reads, ``W A`` and ``W a + b``. ``A`` and ``a`` are had from `Operator.apply` itself, so that an
operator only has to be affine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from real_tasks.export.routes import OTHER_ROUTE, WRITTEN, Side, route_of
from real_tasks.models.families import family_of
from real_tasks.models.places import model_shape, projection_weight
from real_tasks.steering.edits import Edit, Intervention, in_order
from real_tasks.steering.fits import layer_displacement
from real_tasks.steering.operators import Tensors
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleKind

PIECE = 4096
"""Rows of a matrix that are worked on at once: in float64 they take twice the memory and more."""
Rows = Callable[[Float[Tensor, "row width"]], Float[Tensor, "row width"]]


@dataclass
class Rewritten:
    """What is other in a model's state, by name; on the CPU, shaped as it is there.

    Attributes:
        weights: in the place of those that are there.
        biases: the same; some of them may not be there yet.
        untied: whether embedding and language-model head are not the same any more.
        dtype: that they are rounded to; None: to that of what they replace.
    """

    weights: dict[str, Float[Tensor, "..."]] = field(default_factory=dict)
    biases: dict[str, Float[Tensor, "d_out"]] = field(default_factory=dict)
    untied: bool = False
    dtype: torch.dtype | None = None


@torch.no_grad()
def rewritten(
    model: PreTrainedModel, intervention: Intervention, dtype: torch.dtype | None = None
) -> Rewritten:
    """Return the weights and biases by which a model does itself what hooks would do to it.

    Args:
        model: not steered at present.
        intervention: one that `real_tasks.export.affine.check_baking` lets pass.
        dtype: that the weights are rounded to; None: the one that they have.

    Raises:
        UserInputError: an operator is not affine, though it says so.
    """
    shape, found = model_shape(model), Rewritten(dtype=dtype)
    todo: dict[str, list[tuple[Side, list[_Step]]]] = {}
    writing: dict[str, list[Edit]] = {}
    for layer, kind in in_order(intervention.edits):
        here = [e.at(layer) for e in intervention.edits if e.kind == kind and layer in e.layers]
        steps = _steps([e for e in here if not e.operator.writes], intervention.strength, shape)
        if kind == "residual_in" and layer == 0:
            _rewrite_embedding(model, steps, found)
        else:
            path, side = _site(model, layer, kind)
            todo.setdefault(path, []).append((side, steps))
            writing.setdefault(path, []).extend(e for e in here if e.operator.writes)
    for path, sides in todo.items():
        projection = _Projection(model.get_submodule(path), block_factor(model))
        # They read what the projection reads, whatever is done to that, and come first of what
        # is done to what it puts out.
        for edit in writing[path]:
            projection.rewrite_columns(edit, intervention.strength, shape)
        for side, steps in sides:
            projection.take(side, steps)
        projection.write(path, found)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = embedding.get_parameter("weight") is head.get_parameter("weight")
    ends = {f"{_name(model, embedding)}.weight", f"{_name(model, head)}.weight"}
    found.untied = tied and bool(ends & found.weights.keys())
    return found


@dataclass(frozen=True)
class _Step:
    """A constant that is added to the whole part, or an affine change of its rows."""

    constant: Float[Tensor, "width"] | None
    change: Rows


def _steps(edits: Sequence[Edit], strength: float, shape: ModelShape) -> list[_Step]:
    """Return what is done at one place; constants in a row are summed up, as hooks do."""
    steps = []
    for is_constant, group in groupby(edits, lambda e: e.displacement(strength) is not None):
        if is_constant:
            vectors = [layer_displacement(edit, strength, shape) for edit in group]
            total = sum(vectors[1:], vectors[0]).float()
            steps.append(_Step(total, partial(torch.add, total)))
        else:
            steps += [_Step(None, _rows(edit, strength, shape)) for edit in group]
    return steps


def _rows(edit: Edit, strength: float, shape: ModelShape) -> Rows:
    """Return the edit of one layer as a function of rows, each as wide as the whole part."""
    spans = [shape.span(module) for module in edit.modules]
    columns = torch.stack([torch.arange(span.start, span.stop) for span in spans])
    # Differences of results are taken, whose constant may be far larger than they are.
    tensors = {name: tensor.cpu().double() for name, tensor in edit.tensors.items()}
    strengths = (strength * edit.weights.cpu().double())[None, None]

    def change(x: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        own = edit.operator.apply(x[None, :, columns], tensors, strengths)[0]
        return x.index_copy(1, columns.flatten(), own.flatten(1))

    _check_affine(change, shape.part_width(edit.kind), edit.operator.formula)
    return change


def _check_affine(change: Rows, width: int, formula: str) -> None:
    """Check on some random rows that an operator keeps what it says of itself."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 16, width, generator=generator, dtype=torch.double)
    moved, expected = change(x + y) - change(y), change(x) - change(torch.zeros_like(x))
    if not torch.allclose(moved, expected, atol=1e-6 * float(expected.abs().max())):
        raise UserInputError(
            f"the operator {formula} says that it is affine in x, but is not; let its class say "
            "affine = False, and " + OTHER_ROUTE
        )


class _Projection:
    """A projection ``y = weight @ x + bias`` on its way to another one."""

    def __init__(self, module: nn.Module, times: float) -> None:
        """Begin with a module, whose output the block multiplies by ``times`` and adds."""
        self._module, self._times = module, times
        self._weight = self._first = projection_weight(module).detach()
        bias = getattr(module, "bias", None)
        self._first_bias = None if bias is None else bias.detach().float().cpu()
        self._bias = self._first_bias

    def write(self, path: str, found: Rewritten) -> None:
        """Say what became of it."""
        dtype = found.dtype or self._first.dtype
        if self._weight is not self._first:
            weight = self._weight.T if isinstance(self._module, Conv1D) else self._weight
            found.weights[f"{path}.weight"] = weight.to(dtype).contiguous()
        if self._bias is not None and self._bias is not self._first_bias:
            found.biases[f"{path}.bias"] = self._bias.to(dtype)

    def take(self, side: Side, steps: Sequence[_Step]) -> None:
        """Do the steps at the input, at the output, or behind it in the residual stream."""
        # Of what is done before the projection, the last is the nearest to it.
        for step in reversed(steps) if side == "input" else steps:
            if side == "input":
                self._before(step)
            elif step.constant is not None:
                self._add(step.constant / (self._times if side == "behind" else 1.0))
            else:
                assert side == "output"
                self._after(step.change)

    def rewrite_columns(self, edit: Edit, strength: float, shape: ModelShape) -> None:
        """Add what an edit that writes adds; columns to which that is nothing keep every bit."""
        for row, module in enumerate(edit.modules):
            one, span = edit.only([row]), shape.span(module)
            tensors = {name: tensor.cpu().double() for name, tensor in one.tensors.items()}
            strengths = (strength * one.weights.cpu().double())[None, None]

            def written(x: Tensor, tensors: Tensors = tensors, by: Tensor = strengths) -> Tensor:
                return edit.operator.apply(x[None, :, None], tensors, by)[0]

            if row == 0:
                _check_affine(written, shape.width(module), edit.operator.formula)
            added = written(torch.eye(shape.width(module), dtype=torch.double)).T
            if added.any():
                if self._weight is self._first:
                    self._weight = self._first.float().cpu().clone()
                self._weight[:, span] = (self._weight[:, span].double() + added).float()

    def _before(self, step: _Step) -> None:
        weight, added = self._weight.float(), step.constant
        if added is None:
            added = step.change(torch.zeros(1, weight.shape[1]).double())[0].float()
            self._weight = torch.cat([_pulled(step.change, w) for w in weight.split(PIECE)])
        if step.constant is not None or added.any():
            self._add((weight @ added.to(weight.device)).cpu())

    def _after(self, change: Rows) -> None:
        columns = self._weight.float().cpu().T
        nothing = change(torch.zeros(1, columns.shape[1]).double())
        if self._bias is not None:
            self._bias = change(self._bias[None].double())[0].float()
        elif nothing.any():
            self._bias = nothing[0].float()
        self._weight = _applied(change, columns, nothing).T

    def _add(self, constant: Tensor) -> None:
        self._bias = (0.0 if self._bias is None else self._bias) + constant.cpu()


def _applied(change: Rows, x: Float[Tensor, "row width"], less: Tensor | float) -> Tensor:
    """Return ``change(x) - less``, row by row, float32."""
    return torch.cat([(change(rows.double()) - less).float() for rows in x.split(PIECE)])


def _pulled(change: Rows, weight: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
    """Return ``weight @ A`` of the affine change: what it sends back, without ``A`` being made."""
    rows = weight.cpu().double()
    with torch.enable_grad():
        x = torch.zeros_like(rows, requires_grad=True)
        (found,) = torch.autograd.grad(change(x), x, rows)
    return found.float()


def _rewrite_embedding(model: PreTrainedModel, steps: Sequence[_Step], found: Rewritten) -> None:
    """Do the steps at the first layer's input: in the embedding of every token."""
    module, route = model.get_input_embeddings(), route_of(model.config.model_type)
    weight, times = module.get_parameter("weight"), 1.0
    if hasattr(module, "embed_scale"):
        times = float(module.get_buffer("embed_scale").to(weight.dtype))
    elif route.embedding_times is not None:
        times = float(getattr(model.config.get_text_config(), route.embedding_times))
    tokens = weight.float().cpu() * times
    positions = None
    if route.positions is not None:
        positions = model.get_submodule(route.positions).get_parameter("weight").float().cpu()
    for step in steps:
        tokens = _applied(step.change, tokens, 0.0)
        if positions is not None:
            nothing = step.change(torch.zeros(1, positions.shape[1]).double())
            positions = _applied(step.change, positions, nothing)
    dtype = found.dtype or weight.dtype
    found.weights[f"{_name(model, module)}.weight"] = (tokens / times).to(dtype)
    if positions is not None:
        found.weights[f"{route.positions}.weight"] = positions.to(dtype)


def _site(model: PreTrainedModel, layer: int, kind: ModuleKind) -> tuple[str, Side]:
    """Return the path of the projection that an edit is written into, and where its site lies."""
    family = family_of(model.config)
    if kind == "residual_in":  # what the layer before puts out
        layer, kind = layer - 1, "layer"
    projection, side = WRITTEN[kind]
    if projection == "lm_head":
        return family.lm_head, side
    within = family.o_proj if projection == "o_proj" else family.down_proj
    return f"{family.layers}.{layer}.{within}", side


def block_factor(model: PreTrainedModel) -> float:
    """Return what a block multiplies by before it adds what a projection puts out."""
    name = route_of(model.config.model_type).times
    return 1.0 if name is None else float(getattr(model.config.get_text_config(), name))


def _name(model: PreTrainedModel, module: nn.Module) -> str:
    return next(str(name) for name, other in model.named_modules() if other is module)
