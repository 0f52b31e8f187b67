"""What a server has to offer: the bare model, specs by name, and any mixture of them."""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import Steering
from real_tasks.steering.spec import SteeringSpec
from real_tasks.steering.spec_files import FACTS_FILE, TENSORS_FILE
from real_tasks.vocabulary.errors import UserInputError

log = logging.getLogger(__name__)

READY = 128
"""Mixtures of specs that are kept ready for further requests."""

Mixture = tuple[tuple[str, float], ...]
"""Names of specs, each with its strength; 1 is as tuned, 0 nothing at all."""


class UnknownNameError(UserInputError):
    """No model, or no spec, of a name; ``kind`` says of which."""

    def __init__(self, kind: str, name: str, known: Sequence[str]) -> None:
        """Say what there is instead."""
        self.kind = kind
        there = ", ".join(known) or "none"
        super().__init__(f"there is no {kind} {name!r}; there are: {there}")


class NamedSpec:
    """A spec as it was when it was loaded, and whether its files have changed since."""

    def __init__(self, name: str, folder: Path) -> None:
        """Load it.

        Raises:
            UserInputError: see `SteeringSpec.load`.
        """
        self.name, self.folder = name, folder
        self._stamp = self._now()
        self.spec = SteeringSpec.load(folder)
        self._told = False

    @property
    def changed_on_disk(self) -> bool:
        """Whether the folder holds something else by now; what was loaded goes on being used."""
        return self._now() != self._stamp

    def tell_change(self) -> None:
        """Warn, once, of files that have changed."""
        if not self._told and self.changed_on_disk:
            self._told = True
            log.warning(
                "the spec %s (%s) has changed on disk; what was loaded at the start is served, "
                "start again to serve what is there now",
                *(self.name, self.folder),
            )

    def _now(self) -> list[tuple[int, int] | None]:
        files = [self.folder / name for name in (FACTS_FILE, TENSORS_FILE)]
        stats = [file.stat() if file.exists() else None for file in files]
        return [None if stat is None else (stat.st_mtime_ns, stat.st_size) for stat in stats]


class Catalogue:
    """The bare model under its name, and each spec under ``NAME:SPEC``.

    Attributes:
        name: of the bare model.
        specs: by name.
    """

    def __init__(self, loaded: LoadedModel, name: str, folders: Mapping[str, Path]) -> None:
        """Load the specs.

        Raises:
            UserInputError: a folder holds no spec, or one that was made for another model.
        """
        self.name = name
        self._model = loaded.model
        self.specs: dict[str, NamedSpec] = {}
        for spec_name, folder in folders.items():
            self.add(spec_name, folder)
        self._ready = lru_cache(maxsize=READY)(self._made)

    def add(self, name: str, folder: Path) -> None:
        """Load one more spec; see `__init__`."""
        named = NamedSpec(name, folder)
        named.spec.check_model(self._model)
        self.specs[name] = named

    @property
    def models(self) -> dict[str, str | None]:
        """The models that requests may name, with the spec of each."""
        return {self.name: None} | {f"{self.name}:{name}": name for name in self.specs}

    def mixture(self, model: str, asked: Mixture = ()) -> Mixture:
        """Return the specs that a model's name and a list stand for, the name's first.

        Raises:
            UnknownNameError: no such model or spec.
            UserInputError: one spec twice.
        """
        if model not in self.models:
            raise UnknownNameError("model", model, tuple(self.models))
        named = self.models[model]
        mixture = (*(((named, 1.0),) if named is not None else ()), *asked)
        names = [name for name, _ in mixture]
        for name in names:
            if name not in self.specs:
                raise UnknownNameError("spec", name, tuple(self.specs))
            if names.count(name) > 1:
                raise UserInputError(
                    f"the spec {name!r} is asked for twice; ask for it once, by the model's name "
                    "or in steering"
                )
            self.specs[name].tell_change()
        return mixture

    def steering(self, mixture: Mixture) -> Steering | None:
        """Return a mixture made ready, in the order in which its specs are named.

        Raises:
            UserInputError: so strong that it overflows the model's type.
        """
        return self._ready(mixture)

    def _made(self, mixture: Mixture) -> Steering | None:
        chosen = [(self.specs[name].spec, strength) for name, strength in mixture]
        parts = [Intervention(spec.edits, spec.alpha * strength) for spec, strength in chosen]
        together = Intervention.together(parts)
        return None if together is None else Steering(self._model, together)
