"""Steering specs: all that is needed to steer a model, in a folder of safetensors and JSON.

with SteeringSpec.load("spec").applied_to(model):
    model.generate(**tokenizer("Q: ...", return_tensors="pt"))
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.models.families import model_shape
from real_tasks.models.identity import weights_fingerprint
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.intervention import Intervention, applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import WHOLE_LAYER, ModelShape, ModuleId, ModuleKind, TokenScope

TENSORS_FILE = "steering.safetensors"
FACTS_FILE = "steering.json"
FORMAT_VERSION = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SteeringSpec:
    """How to steer a model: each module gets ``alpha * strength * sigma * direction`` added.

    Attributes:
        model: the model's name, for people.
        model_digest: of the checkpoint the directions were measured on.
        modules: the selected modules, all of one kind.
        directions: unit vectors, one row per module.
        sigmas: standard deviations of the activations along the directions.
        strengths: weights (w) of the modules.
        alpha: the common factor, in standard deviations along the directions.
        token_scope: the positions that are steered.
        shape: of the model.
        provenance: where the spec comes from; values as JSON has them.
        weights: the model's `weights_fingerprint`, by which another one is told; empty if unknown.
    """

    model: str
    model_digest: str
    modules: tuple[ModuleId, ...]
    directions: Float[Tensor, "module d"]
    sigmas: Float[Tensor, "module"]
    strengths: Float[Tensor, "module"]
    alpha: float
    token_scope: TokenScope
    shape: ModelShape
    provenance: dict[str, Any] = field(default_factory=dict)
    weights: str = ""

    def __post_init__(self) -> None:
        """Check that the parts fit together; UserInputError says which does not."""
        _check_modules(self.modules, self.shape)
        n = len(self.modules)
        width = self.shape.width(self.kind)
        shapes = {"directions": (n, width), "sigmas": (n,), "strengths": (n,)}
        for name, expected in shapes.items():
            found = tuple(getattr(self, name).shape)
            if found != expected:
                raise UserInputError(f"steering spec: {name} of shape {found}, expected {expected}")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float):
            raise UserInputError(f"steering spec: alpha {self.alpha!r}, expected a number")
        if self.token_scope not in get_args(TokenScope):
            raise UserInputError(
                f"steering spec: unknown token scope {self.token_scope!r}; expected one of "
                f"{', '.join(get_args(TokenScope))}"
            )

    @property
    def kind(self) -> ModuleKind:
        """The kind of all its modules."""
        return self.modules[0].kind

    def with_alpha(self, alpha: float) -> "SteeringSpec":
        """Return the same spec with another common factor."""
        return replace(self, alpha=alpha)

    def intervention(self) -> Intervention:
        """Return the displacement of every layer that has a selected module."""
        width = self.shape.width(self.kind)
        layer_width = self.shape.modules_per_layer(self.kind) * width
        scale = self.alpha * self.strengths * self.sigmas
        displacement: dict[int, Tensor] = {}
        for module, vector in zip(self.modules, scale[:, None] * self.directions, strict=True):
            if module.layer not in displacement:
                displacement[module.layer] = vector.new_zeros(layer_width)
            start = max(module.head, 0) * width
            displacement[module.layer][start : start + width] = vector
        return Intervention(dict(sorted(displacement.items())), self.token_scope, self.kind)

    @contextmanager
    def applied_to(
        self,
        model: LoadedModel | PreTrainedModel,
        *,
        force: bool = False,
        digest: str | None = None,
    ) -> Iterator[None]:
        """Steer a model within the context; see `real_tasks.steering.intervention.applied`.

        Args:
            model: the model that the spec was made for, known by its weights.
            force: steer another model of the same shape all the same (a fine-tuned one, say).
            digest: of the checkpoint that the model was loaded from, where it is known; it is then
                compared instead of the weights.

        Raises:
            UserInputError: the model has another shape, or is another one and ``force`` is not set.
        """
        plain = model.model if isinstance(model, LoadedModel) else model
        self._check_shape(plain)
        if not force:
            self._check_identity(plain, digest)
        with applied(model, self.intervention()):
            yield

    def _check_shape(self, model: PreTrainedModel) -> None:
        shape = model_shape(model)
        if shape != self.shape:
            raise UserInputError(
                f"the model has {_in_words(shape)}; the steering spec was made for "
                f"{_in_words(self.shape)} ({self.model}); use that model"
            )

    def _check_identity(self, model: PreTrainedModel, digest: str | None) -> None:
        if digest is not None:
            what, found, expected = "checkpoint", digest, self.model_digest
        elif self.weights:
            what, found, expected = "weights", weights_fingerprint(model), self.weights
        else:
            log.warning(
                "the steering spec does not say by which weights its model %s is known; "
                "only the shape was checked",
                self.model,
            )
            return
        if found != expected:
            name = getattr(model.config, "name_or_path", "") or "it has no name"
            raise UserInputError(
                f"the steering spec was made for the model {self.model} ({what} {expected}), this "
                f"is another one ({name}; {what} {found}); use that model, or say force=True where "
                "you mean this one (weights count as others also when they are quantised, or "
                "stored as float32 and loaded as float16)"
            )

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
            "shape": asdict(self.shape),
            "weights": self.weights,
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
                f"{folder}: steering spec of format {version}, this program reads "
                f"{FORMAT_VERSION}; make it again by running its experiment again"
            )
        try:
            modules = tuple(ModuleId(**module) for module in facts.pop("modules"))
            shape = ModelShape(**facts.pop("shape"))
            return cls(modules=modules, shape=shape, **facts, **{n: tensors[n] for n in _TENSORS})
        except UserInputError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserInputError(
                f"{folder}: the steering spec is damaged ({error}); make it again"
            ) from error


_TENSORS = ("directions", "sigmas", "strengths")


def _check_modules(modules: Sequence[ModuleId], shape: ModelShape) -> None:
    if not modules:
        raise UserInputError("steering spec: it lists no module; select at least one")
    if len(set(modules)) != len(modules):
        raise UserInputError("steering spec: a module is listed twice; keep it once")
    kinds = sorted({module.kind for module in modules})
    if len(kinds) > 1 or kinds[0] not in get_args(ModuleKind):
        raise UserInputError(
            f"steering spec: modules of the kinds {', '.join(kinds)}; expected all of one of "
            f"{', '.join(get_args(ModuleKind))}"
        )
    for module in modules:
        if module.kind == "head":
            fits = 0 <= module.head < shape.n_heads
        else:
            fits = module.head == WHOLE_LAYER
        if not fits or not 0 <= module.layer < shape.n_layers:
            raise UserInputError(f"steering spec: {module} is not in {_in_words(shape)}")


def _in_words(shape: ModelShape) -> str:
    return (
        f"{shape.n_layers} layers with {shape.n_heads} heads of {shape.head_dim} on a residual "
        f"stream of {shape.d_model}"
    )


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
    except (SafetensorError, TypeError, ValueError, OSError, RecursionError) as error:
        raise UserInputError(
            f"{folder}: the steering spec is damaged ({error}); make it again"
        ) from error
