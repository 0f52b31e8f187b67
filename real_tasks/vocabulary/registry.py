"""Registries of plug-ins: one class in one file of an auto-imported package, found by its name.

A plug-in is a class with a nested frozen pydantic model ``Params``. Other packages bring further
ones by entry points. Importing them all is deferred to the first look-up, so that a configuration
can be validated without import cycles.
"""

import importlib
import logging
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.installed import imported, installed, owner_of

log = logging.getLogger(__name__)

T = TypeVar("T")
E = TypeVar("E")


class UnknownNameError(UserInputError):
    """A name that no plug-in of the registry has; the message lists those that exist."""


def registered_names(kind: str) -> list[str]:
    """Return the names of the registry of that kind; none where no module made one yet."""
    return list(_registries.get(kind, ()))


class Registry(Generic[T]):
    """Plug-ins of one kind ``T``: classes registered by ``@registry.register("name")``."""

    def __init__(self, kind: str, package: str, declared: type = object) -> None:
        """Make an empty registry.

        Args:
            kind: what error messages call a plug-in; with an s, the group of its entry points.
            package: whose modules register the project's own plug-ins.
            declared: what plug-ins of other packages have to have: all that this type declares.
        """
        self.kind = kind
        self._package, self._declared = package, declared
        self._entries: dict[str, type[T]] = {}
        self._left_out: dict[str, UserInputError] = {}
        self._loaded = self._adding = False
        self._loading = threading.RLock()
        _registries.setdefault(kind, self)

    def register(self, name: str) -> Callable[[E], E]:
        """Register the decorated plug-in as ``name``; a name taken already raises ValueError."""

        def add(entry: E) -> E:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return add

    def __getitem__(self, name: str) -> type[T]:
        """Return the plug-in called ``name``.

        Raises:
            UnknownNameError: there is none; the message lists the known names, or says why the one
                of another package is left out.
        """
        self._load()
        if name in self._left_out:
            raise UnknownNameError(f"the {self.kind} {self._left_out[name]}")
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise UnknownNameError(f"unknown {self.kind} {name!r}; known: {known}")
        return self._entries[name]

    def name_of(self, made: T) -> str:
        """Return the name under which the class of a plug-in is registered."""
        self._load()
        return next(name for name, entry in self._entries.items() if entry is type(made))

    def made(self, name: str, params: Mapping[str, Any], *further: Any) -> T:
        """Return the plug-in called ``name`` with its parameters, validated.

        Raises:
            UnknownNameError: there is none.
            ValidationError: the parameters do not fit.
        """
        entry: Any = self[name]
        made: T = entry(entry.Params.model_validate(params), *further)
        return made

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def _load(self) -> None:
        if self._loaded:
            return
        with self._loading:  # another thread must not look up in a registry that is half filled
            if self._loaded or self._adding:  # a plug-in may look up others while it is imported
                return
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            self._adding = True
            try:
                self._add_installed()
            finally:
                self._adding = False
            self._loaded = True

    def _add_installed(self) -> None:
        """Add what other packages bring; what cannot be had is told once, and left out.

        Raises:
            UserInputError: two have one name.
        """
        points, owners = installed(f"{self.kind.replace(' ', '_')}s"), {}
        for point in points:
            entry = self._entries.get(point.name)
            if entry and _root(entry.__module__) != _root(point.module):
                owners[point.name] = entry.__module__
            if point.name in owners:
                raise UserInputError(
                    f"two plug-ins are the {self.kind} {point.name!r}: {owners[point.name]} and "
                    f"{point.value} of the package {owner_of(point)}; uninstall one of them"
                )
            owners[point.name] = f"{point.value} of the package {owner_of(point)}"
        for point in points:
            try:
                self._entries[point.name] = imported(point, self._declared)
            except UserInputError as error:
                self._left_out[point.name] = error
                self._entries.pop(point.name, None)  # It may have registered itself already.
                log.warning("the %s %s", self.kind, error)


def _root(module: str) -> str:
    return module.partition(".")[0]


_registries: dict[str, Registry[Any]] = {}
