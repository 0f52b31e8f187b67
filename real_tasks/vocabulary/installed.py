"""Plug-ins of other packages: what is installed under entry points ``real_steering.*``."""

import inspect
import logging
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

from pydantic import BaseModel

from real_tasks.vocabulary.errors import UserInputError

log = logging.getLogger(__name__)


class InstalledFolder(NamedTuple):
    """A folder of a package: the name of its entry point, the folder, the package with version."""

    name: str
    folder: Traversable
    owner: str


def installed(group: str) -> list[EntryPoint]:
    """Return the entry points ``real_steering.<group>`` of all installed packages, by name."""
    return sorted(entry_points(group=f"real_steering.{group}"), key=lambda one: one.name)


def method_folders() -> list[InstalledFolder]:
    """Return the folders of methods (YAML) that packages bring; one that fails is a warning."""
    found = []
    for point in installed("methods"):
        try:
            found.append(InstalledFolder(point.name, files(imported(point)), owner_of(point)))
        except UserInputError as error:
            log.warning("%s", error)
    return found


def owner_of(point: EntryPoint) -> str:
    """Return the package of an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def imported(point: EntryPoint, kind: type | None = None) -> Any:
    """Return what an entry point names: a class of a kind, or without one anything.

    Raises:
        UserInputError: it cannot be imported, or is no plug-in of the kind; says of which package.
    """
    try:
        found = point.load()
        wrong = _misfit(found, kind) if kind else ""
    except (Exception, SystemExit) as error:  # whatever a package does when it is imported
        wrong = f"fails with {type(error).__name__}: {error}"
    if wrong:
        raise UserInputError(
            f"{point.name!r} of the package {owner_of(point)} is left out: its entry point "
            f"{point.value} ({point.group}) {wrong}; mend the package or uninstall it"
        )
    return found


def _misfit(found: Any, kind: type) -> str:
    """Say why something is no class with all that the kind declares; nothing where it is one."""
    if not isinstance(found, type):
        return f"is a {type(found).__name__}, expected a class"
    declared = {n for one in kind.__mro__[:-1] for n in (*vars(one), *inspect.get_annotations(one))}
    missing = {name for name in declared if name[0] != "_" and not hasattr(found, name)}
    missing |= getattr(found, "__abstractmethods__", frozenset())
    if missing:
        return f"is a class without {', '.join(sorted(missing))}, expected a {kind.__name__}"
    params = getattr(found, "Params", BaseModel)
    if not (isinstance(params, type) and issubclass(params, BaseModel)):
        return f"has {params!r} as its Params, expected a frozen pydantic model"
    return ""
