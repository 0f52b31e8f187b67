"""Steering as a LoRA adapter, in peft's files: changes of weights that have a low rank.

An edit turns a weight ``W`` into ``W'``, and ``W' - W = B A`` exactly where that has a low rank
(LoRA, arXiv 2106.09685): a direction v that is not written any more is ``-v v^T W``, of rank one.
The scaling is 1 (``lora_alpha`` equals ``r``). The folder names its base model and is read by peft,
by transformers where peft is installed, by servers that take LoRA, and as a model by this project.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from real_tasks.export.affine import adds_constant, check_baking, width_of
from real_tasks.export.bake import check_bake
from real_tasks.export.rewriting import Rewritten, rewritten
from real_tasks.export.routes import ALWAYS, OTHER_ROUTE, WRITTEN, Projection, route_of
from real_tasks.models.checkpoints import ADAPTER, ADAPTER_WEIGHTS
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.vocabulary.errors import UserInputError

LARGEST_RANK = 64
"""Beyond it a change of weights is no low-rank one, and servers of adapters refuse most."""


@dataclass(frozen=True)
class Adapter:
    """What was written.

    Attributes:
        modules: names of those whose weights it changes.
        rank: of its matrices.
        unties: whether it changes one of embedding and head where they share their weight.
    """

    modules: tuple[str, ...]
    rank: int
    unties: bool


def check_lora(intervention: Intervention, model_type: str) -> int:
    """Check that low-rank changes of weights alone do what an intervention does, exactly.

    Returns:
        The largest rank of a weight's change.

    Raises:
        UserInputError: they do not; says why, and the way out.
    """
    check_baking(intervention, model_type)
    for edit in intervention.edits:
        projection, side = WRITTEN[edit.kind]
        formula = edit.operator.formula
        if adds_constant(edit, intervention.strength):
            raise _refused(f"{formula} adds a constant, and LoRA changes weights, no biases")
        biased = route_of(model_type).bias(edit.kind) == ALWAYS and projection != "embedding"
        if side == "output" and biased and not edit.operator.writes:
            raise _refused(
                f"{formula} at {edit.kind!r} changes the bias that the projection of every "
                f"{model_type!r} has, and LoRA changes weights, no biases"
            )
    return _largest_rank(intervention)


def save_lora(
    loaded: LoadedModel, intervention: Intervention, base: str, revision: str | None, folder: Path
) -> Adapter:
    """Write the adapter with which a model does itself what hooks would do to it.

    As its model it names ``base``, a folder or a Hugging Face id with its revision. `check_lora`
    lets the intervention pass; the model is not steered at present.

    Raises:
        UserInputError: see `check_lora` and `real_tasks.export.bake.check_bake`; a bias that would
            be changed, too; nothing is changed at all.
    """
    model = loaded.model
    rank = check_lora(intervention, model.config.model_type)
    check_bake(model, intervention)
    made = rewritten(model, intervention, torch.float32)
    _check_biases(model, made)
    tensors: dict[str, Tensor] = {}
    names, before = [], model.state_dict()
    for name, weight in made.weights.items():
        path = name.removesuffix(".weight")
        change = weight - before[name].float().cpu()
        if not change.any():
            continue
        module, key = model.get_submodule(path), "lora_{}.weight"
        if isinstance(module, nn.Embedding):
            key = "lora_embedding_{}"
        turned = isinstance(module, Conv1D | nn.Embedding)  # their weights are [in, out]
        parts = zip("AB", _factors(change.T if turned else change, rank), strict=True)
        tensors |= {f"base_model.model.{path}.{key.format(p)}": tensor for p, tensor in parts}
        names.append(path)
    if not names:
        raise UserInputError("the steering changes no weight; there is nothing to export")
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    facts = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in model.modules()),
        "init_lora_weights": True,
        "target_modules": names,
    }
    (folder / ADAPTER).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    return Adapter(tuple(names), rank, made.untied)


def _check_biases(model: nn.Module, made: Rewritten) -> None:
    state = model.state_dict()
    for name, bias in made.biases.items():
        if not torch.equal(bias.to(state[name].dtype), state[name].cpu()):
            raise _refused(f"{name} would be another one, and LoRA changes weights, no biases")


def _largest_rank(intervention: Intervention) -> int:
    """Return the largest rank of a projection's change, all edits of it together.

    Raises:
        UserInputError: it is beyond `LARGEST_RANK`.
    """
    found: Counter[tuple[Projection, int]] = Counter()
    for edit in intervention.edits:
        for row, module in enumerate(edit.modules):
            place = WRITTEN[edit.kind][0], module.layer
            found[place] += _rank(edit.only([row]), intervention.strength)
            if found[place] > LARGEST_RANK:
                raise _refused(
                    f"{edit.operator.formula} changes the weight of {place[0]} in layer "
                    f"{module.layer} by a matrix of a rank beyond {LARGEST_RANK}, which is no low "
                    "one"
                )
    return max(found.values())


def _rank(edit: Edit, strength: float) -> int:
    """Return the rank of the matrix by which an edit of one module changes what it sees."""
    width = width_of(edit)
    draw = torch.Generator().manual_seed(0)
    shape = (1, min(width, LARGEST_RANK + 1), 1, width)
    x = torch.randn(*shape, generator=draw, dtype=torch.double)
    tensors = {name: tensor.cpu().double() for name, tensor in edit.tensors.items()}
    made = edit.operator.apply(x, tensors, (strength * edit.weights.cpu().double())[None, None])
    change = made if edit.operator.writes else made - x
    return int(torch.linalg.matrix_rank(change.flatten(0, -2)))


def _factors(
    change: Float[Tensor, "out in"], rank: int
) -> tuple[Float[Tensor, "r in"], Float[Tensor, "out r"]]:
    """Return A and B with ``B A`` the change, whose rank is known to be ``r`` or less.

    A few random mixtures of columns span its range (Halko et al., arXiv 0909.4061).
    """
    draw = torch.Generator().manual_seed(0)
    n_mixed = min(rank + 8, *change.shape)
    mixed = change @ torch.randn(change.shape[1], n_mixed, generator=draw)
    within = torch.linalg.qr(mixed.double()).Q
    left, sizes, right = torch.linalg.svd(within.T @ change.double(), full_matrices=False)
    a, b = change.new_zeros(rank, change.shape[1]), change.new_zeros(change.shape[0], rank)
    n, roots = min(rank, n_mixed), sizes.sqrt()
    a[:n], b[:, :n] = (roots[:, None] * right)[:n], (within @ left * roots)[:, :n]
    return a, b


def _refused(why: str) -> UserInputError:
    return UserInputError(f"{why}; export a checkpoint (--format checkpoint), or {OTHER_ROUTE}")
