"""Steering specs: all that is needed to steer a model, in a folder of safetensors and JSON.

with SteeringSpec.load("spec").applied_to(model):
    model.generate(**tokenizer("Q: ...", return_tensors="pt"))
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.models.hub_folders import fetched_folder, public_name, pushed
from real_tasks.models.identity import weights_fingerprint
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import model_shape
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fits import check_edit
from real_tasks.steering.hooks import applied
from real_tasks.steering.spec_files import FACTS_FILE, TENSORS_FILE, read_spec, write_spec
from real_tasks.vocabulary.errors import UserInputError, first_of
from real_tasks.vocabulary.file_forms import expanded
from real_tasks.vocabulary.scopes import Scope
from real_tasks.vocabulary.types import ModelShape, ModuleId, ModuleKind, TokenScope

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SteeringSpec:
    """How to steer a model: edits, and one number by which all of them are scaled.

    Attributes:
        model: the model's name, for people.
        model_digest: of the checkpoint that the tensors were fitted on.
        edits: in the order in which they are done where they meet.
        alpha: the common strength; of edits that add, in standard deviations along the directions.
        shape: of the model.
        provenance: where the spec comes from; values as JSON has them.
        weights: the model's `weights_fingerprint`, by which another one is told; empty if unknown.
    """

    model: str
    model_digest: str
    edits: tuple[Edit, ...]
    alpha: float
    shape: ModelShape
    provenance: dict[str, Any] = field(default_factory=dict)
    weights: str = ""

    def __post_init__(self) -> None:
        """Check that the parts fit together; UserInputError says which does not."""
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not number or not math.isfinite(self.alpha):
            raise UserInputError(f"steering spec: alpha {self.alpha!r}, expected a number")
        if not self.edits:
            raise UserInputError("steering spec: it lists no edit; give at least one")
        for edit in self.edits:
            _check_edit(edit, self.shape)

    @classmethod
    def adding(
        cls,
        *,
        modules: Sequence[ModuleId],
        directions: Float[Tensor, "module d"],
        sigmas: Float[Tensor, "module"],
        strengths: Float[Tensor, "module"],
        token_scope: Scope,
        **facts: Any,
    ) -> "SteeringSpec":
        """Return the spec by which each module gets ``alpha * strength * sigma * direction`` added.

        The modules are of one part, the directions unit vectors, the sigmas standard deviations of
        the activations along them. ``facts`` are the other fields.
        """
        tensors = {"direction": directions, "scale": sigmas}
        return cls(edits=(Edit(tuple(modules), tensors, strengths, scope=token_scope),), **facts)

    @property
    def modules(self) -> tuple[ModuleId, ...]:
        """The modules of all edits, each once."""
        return tuple(dict.fromkeys(module for edit in self.edits for module in edit.modules))

    @property
    def kinds(self) -> tuple[ModuleKind, ...]:
        """The parts of the network that are edited, each once."""
        return tuple(dict.fromkeys(edit.kind for edit in self.edits))

    @property
    def gated(self) -> bool:
        """Whether a gate says when an edit acts."""
        return any(edit.gate for edit in self.edits)

    def with_alpha(self, alpha: float) -> "SteeringSpec":
        """Return the same spec with another strength."""
        return replace(self, alpha=alpha)

    def intervention(self) -> Intervention:
        """Return what hooks do."""
        return Intervention(self.edits, self.alpha)

    def explain(self) -> str:
        """Return in plain words what is touched, where, how strongly and when."""
        return "\n".join(_explained(edit, self.alpha) for edit in self.edits)

    @contextmanager
    def applied_to(
        self,
        model: LoadedModel | PreTrainedModel,
        *,
        force: bool = False,
        digest: str | None = None,
    ) -> Iterator[None]:
        """Steer a model within the context; see `real_tasks.steering.hooks.applied`.

        Args:
            model: the model that the spec was made for, known by its weights.
            force: steer another model of the same shape all the same (a fine-tuned one, say).
            digest: of the checkpoint that the model was loaded from, where it is known; it is then
                compared instead of the weights.

        Raises:
            UserInputError: the model has another shape, or is another one and ``force`` is not set.
        """
        self.check_model(model, force=force, digest=digest)
        with applied(model, self.intervention()):
            yield

    def check_model(
        self,
        model: LoadedModel | PreTrainedModel,
        *,
        force: bool = False,
        digest: str | None = None,
    ) -> None:
        """Check that a model is the spec's, as `applied_to` does; see there."""
        plain = model.model if isinstance(model, LoadedModel) else model
        self._check_shape(plain)
        if not force:
            self._check_identity(plain, digest)

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
        facts = {name: getattr(self, name) for name in _FACTS}
        write_spec(Path(folder), self.edits, facts | {"shape": self.shape})

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Upload the spec with a short card; return the address of the commit.

        Raises:
            UserInputError: see `real_tasks.models.hub_folders.pushed`.
        """
        with TemporaryDirectory() as room:
            folder = Path(room) / "spec"
            shared = replace(self, model=public_name(self.model))
            shared.save(folder)
            (folder / "README.md").write_text(_card(shared), encoding="utf-8")
            return pushed(folder, repo, private=private, message="Add a steering spec")

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> "SteeringSpec":
        """Read a spec from a folder, or from a repository of the Hub (``org/name``).

        Raises:
            UserInputError: see `load` and `real_tasks.models.hub_folders.fetched_folder`.
        """
        folder = expanded(name)
        if folder.is_file():
            raise UserInputError(f"{str(name)!r} is a file; expected a spec's folder")
        if not folder.is_dir():
            folder = fetched_folder(str(name), revision, (TENSORS_FILE, FACTS_FILE))
        return cls.load(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "SteeringSpec":
        """Read what `save` wrote, now or in format 2; tensors are on the CPU.

        Raises:
            UserInputError: the folder holds no steering spec, a damaged one, or another version; an
                operator or a gate that is not installed.
        """
        return read_spec(Path(folder), cls)


def _card(spec: SteeringSpec) -> str:
    """Return a short page on a spec for the Hub, with the front matter that it reads."""
    return (
        f"---\nlibrary_name: real-steering\nbase_model: {spec.model}\ntags: [activation-steering]\n"
        f"---\n\n# How to steer {spec.model}\n\n{spec.explain()}\n\n"
        "It fits this model alone: `SteeringSpec.from_pretrained(...).applied_to(model)`.\n"
    )


_FACTS = ("model", "model_digest", "alpha", "weights", "provenance")


def _check_edit(edit: Edit, shape: ModelShape) -> None:
    modules = edit.modules
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
        if not shape.has(module):
            raise UserInputError(f"steering spec: {module} is not in {_in_words(shape)}")
    if isinstance(edit.scope, str) and edit.scope not in get_args(TokenScope):
        raise UserInputError(
            f"steering spec: unknown token scope {edit.scope!r}; expected one of "
            f"{', '.join(get_args(TokenScope))}"
        )
    if tuple(edit.weights.shape) != (len(modules),):
        raise UserInputError(
            f"steering spec: strengths of shape {tuple(edit.weights.shape)}, expected "
            f"{(len(modules),)}"
        )
    check_edit(edit, shape)


def _explained(edit: Edit, alpha: float) -> str:
    shown = first_of([module.label for module in edit.modules], 3)
    weights = edit.weights
    spread = "" if bool(torch.all(weights == weights[0])) else ", each by its weight"
    norm = ", and the length kept" if edit.keep_norm else ""
    gate = f", where {edit.gate.gate.label}" if edit.gate else ""
    return (
        f"{edit.operator.formula}{norm}, at strength {alpha:g} ({edit.operator.unit}){spread}, "
        f"in {shown}; positions: {edit.scope}{gate}"
    )


def _in_words(shape: ModelShape) -> str:
    return (
        f"{shape.n_layers} layers with {shape.n_heads} heads of {shape.head_dim} on a residual "
        f"stream of {shape.d_model}"
    )
