"""Steering specs: all that is needed to steer a model, in a folder of safetensors and JSON.

with SteeringSpec.load("spec").applied_to(model):
    model.generate(**tokenizer("Q: ...", return_tensors="pt"))
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.errors import UserInputError
from real_tasks.interventions import Intervention, applied
from real_tasks.models import LoadedModel, model_shape
from real_tasks.types import ModuleId, TokenScope

TENSORS_FILE = "steering.safetensors"
FACTS_FILE = "steering.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class SteeringSpec:
    """How to steer a model: each module gets ``alpha * strength * sigma * direction`` added.

    Attributes:
        model: the model's name, for people.
        model_digest: of the checkpoint the directions were measured on.
        modules: the selected heads.
        directions: unit vectors, one row per module.
        sigmas: standard deviations of the activations along the directions.
        strengths: weights (w) of the modules.
        alpha: the common factor, in standard deviations along the directions.
        token_scope: the positions that are steered.
        n_heads: attention heads of a layer.
        head_dim: width of a head.
        provenance: where the spec comes from; values as JSON has them.
    """

    model: str
    model_digest: str
    modules: tuple[ModuleId, ...]
    directions: Float[Tensor, "module d_head"]
    sigmas: Float[Tensor, "module"]
    strengths: Float[Tensor, "module"]
    alpha: float
    token_scope: TokenScope
    n_heads: int
    head_dim: int
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit together; UserInputError says which does not."""
        n = len(self.modules)
        shapes = {"directions": (n, self.head_dim), "sigmas": (n,), "strengths": (n,)}
        for name, expected in shapes.items():
            found = tuple(getattr(self, name).shape)
            if found != expected:
                raise UserInputError(f"steering spec: {name} of shape {found}, expected {expected}")
        if len(set(self.modules)) != n:
            raise UserInputError("steering spec: a module is listed twice; keep it once")
        for module in self.modules:
            if module.kind != "head" or module.layer < 0 or not 0 <= module.head < self.n_heads:
                raise UserInputError(
                    f"steering spec: {module} is no attention head of a layer with {self.n_heads}"
                )
        if self.token_scope not in get_args(TokenScope):
            raise UserInputError(
                f"steering spec: unknown token scope {self.token_scope!r}; expected one of "
                f"{', '.join(get_args(TokenScope))}"
            )

    def with_alpha(self, alpha: float) -> "SteeringSpec":
        """Return the same spec with another common factor."""
        return replace(self, alpha=alpha)

    def intervention(self) -> Intervention:
        """Return the displacement of every layer that has a selected head."""
        scale = self.alpha * self.strengths * self.sigmas
        displacement: dict[int, Tensor] = {}
        for module, vector in zip(self.modules, scale[:, None] * self.directions, strict=True):
            if module.layer not in displacement:
                displacement[module.layer] = vector.new_zeros(self.n_heads * self.head_dim)
            start = module.head * self.head_dim
            displacement[module.layer][start : start + self.head_dim] = vector
        return Intervention(dict(sorted(displacement.items())), self.token_scope)

    @contextmanager
    def applied_to(self, model: LoadedModel | PreTrainedModel) -> Iterator[None]:
        """Steer a model within the context; see `real_tasks.interventions.applied`.

        Raises:
            UserInputError: the model has other heads than those the spec was made for.
        """
        shape = model_shape(model.model if isinstance(model, LoadedModel) else model)
        if (shape.n_heads, shape.head_dim) != (self.n_heads, self.head_dim):
            raise UserInputError(
                f"the model has {shape.n_heads} heads of {shape.head_dim}, the steering spec was "
                f"made for {self.n_heads} of {self.head_dim} ({self.model}); use that model"
            )
        with applied(model, self.intervention()):
            yield

    def save(self, folder: str | Path) -> None:
        """Write ``steering.safetensors`` and ``steering.json`` into a folder, made if need be."""
        folder = Path(folder)
        facts = {
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "model_digest": self.model_digest,
            "modules": [{"kind": m.kind, "layer": m.layer, "head": m.head} for m in self.modules],
            "alpha": self.alpha,
            "token_scope": self.token_scope,
            "n_heads": self.n_heads,
            "head_dim": self.head_dim,
            "provenance": self.provenance,
        }
        text = json.dumps(facts, indent=2, ensure_ascii=False)
        tensors = {n: getattr(self, n).cpu().contiguous() for n in _TENSORS}
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / TENSORS_FILE)
        (folder / FACTS_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "SteeringSpec":
        """Read what `save` wrote; tensors are on the CPU.

        Raises:
            UserInputError: the folder holds no steering spec, a damaged one, or another version.
        """
        tensors, facts = _read(Path(folder))
        version = facts.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise UserInputError(
                f"{folder}: steering spec of format {version}, this program reads {FORMAT_VERSION}"
            )
        try:
            modules = tuple(ModuleId(**module) for module in facts.pop("modules"))
            return cls(modules=modules, **facts, **{n: tensors[n] for n in _TENSORS})
        except (KeyError, TypeError) as error:
            raise UserInputError(
                f"{folder}: the steering spec is damaged ({error}); make it again"
            ) from error


_TENSORS = ("directions", "sigmas", "strengths")


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name in (TENSORS_FILE, FACTS_FILE):
        if not (folder / name).is_file():
            raise UserInputError(
                f"{str(folder)!r} is no steering spec: {name} is missing; expected a folder "
                "written by SteeringSpec.save"
            )
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        return load_file(folder / TENSORS_FILE), dict(facts)
    except (json.JSONDecodeError, SafetensorError, TypeError, ValueError) as error:
        raise UserInputError(
            f"{folder}: the steering spec is damaged ({error}); make it again"
        ) from error
