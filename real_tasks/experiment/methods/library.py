"""The methods that there are, by name: a YAML file each."""

from functools import cache
from importlib.resources import files

from pydantic import ValidationError

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.method_config import MethodConfig
from real_tasks.vocabulary.yaml_text import read_yaml


@cache
def library() -> dict[str, MethodConfig]:
    """Return the methods of this folder, by name, as tables order them."""
    found = [
        method_of(file.read_text(encoding="utf-8"), file.name.removesuffix(".yaml"), file.name)
        for file in files(__package__).iterdir()
        if file.name.endswith(".yaml")
    ]
    return {one.name: one for one in sorted(found, key=lambda one: (one.place, one.name))}


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
