"""The methods that there are, by name: a YAML file each."""

import logging
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from pydantic import ValidationError

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.installed import method_folders
from real_tasks.vocabulary.method_config import MethodConfig
from real_tasks.vocabulary.yaml_text import read_yaml

log = logging.getLogger(__name__)


@cache
def library() -> dict[str, MethodConfig]:
    """Return the methods of this folder and of installed packages, as tables order them.

    One of a package that cannot be read, or has the name of another, is told and left out.
    """
    found = {one.name: one for one in map(_read, _documents(files(__package__)))}
    for package in method_folders():
        for file in _documents(package.folder):
            try:
                method = _read(file)
                if method.name in found:
                    raise UserInputError(f"{file.name}: there is a method {method.name!r} already")
                found[method.name] = method
            except UserInputError as error:
                log.warning("a method of the package %s is left out: %s", package.owner, error)
    ordered = sorted(found.values(), key=lambda one: (one.place, one.name))
    return {one.name: one for one in ordered}


def _documents(folder: Traversable) -> list[Traversable]:
    return [file for file in folder.iterdir() if file.name.endswith(".yaml")]


def _read(file: Traversable) -> MethodConfig:
    text = file.read_text(encoding="utf-8")
    return method_of(text, file.name.removesuffix(".yaml"), file.name)


def method_of(text: str, name: str, where: str) -> MethodConfig:
    """Return the method of a YAML document, which need not say its name.

    Raises:
        UserInputError: it is no YAML, or no method.
    """
    said = read_yaml(text, where)
    if not isinstance(said, dict):
        raise UserInputError(f"{where}: expected the fields of a method, found {said!r:.60}")
    try:
        return MethodConfig.model_validate({"name": name, **said})
    except ValidationError as error:
        raise UserInputError(f"{where} is no method: {error}") from error
