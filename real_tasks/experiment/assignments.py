"""Fields laid over others: file over file, and what `--set` says over both."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from real_tasks.evaluation.judges import JUDGES
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.yaml_text import read_yaml

_TEMPLATE_FIELD = re.compile(r"\{(question|answer|context)\}")

PLUG_INS: dict[str, Registry[Any]] = {
    "model": EMBEDDED_MODELS,
    "behaviour": BEHAVIOURS,
    "behaviours": BEHAVIOURS,
    "localizer": LOCALIZERS,
    "baselines": LOCALIZERS,
    "judge": JUDGES,
}
"""Whose parameters stand below a field."""


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``under`` with ``over`` laid on it.

    Mappings are merged key by key; everything else, a list too, is replaced. A plug-in of another
    name is replaced as well, since its parameters are others.
    """
    tree = dict(under)
    for key, given in over.items():
        below, value = _written_out(key, tree.get(key)), _written_out(key, given)
        mappings = isinstance(below, Mapping) and isinstance(value, Mapping)
        if mappings and not _renamed(below, value):
            value = merged(below, value)
        tree[key] = value
    return tree


def _written_out(key: str, value: Any) -> Any:
    """Return a plug-in that is given by its name alone as the mapping that it stands for."""
    return {"name": value} if isinstance(value, str) and key in PLUG_INS else value


def _renamed(under: Any, over: Any) -> bool:
    return "name" in under and "name" in over and under["name"] != over["name"]


def assign(tree: dict[str, Any], assignment: str, defaults: dict[str, Any]) -> None:
    """Lay one assignment of `--set` over a tree of fields.

    Raises:
        UserInputError: it is none, or there is no such place.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise UserInputError(f"--set {assignment!r}: expected a.dotted.path=value")
    value = _value(assignment, text)
    *parents, last = path.split(".")
    place: Any = tree
    default: Any = defaults
    for parent, part in zip(["", *parents], parents, strict=False):
        default = default.get(part) if isinstance(default, dict) else None
        place = _step(place, part, default, assignment, parent)
    if isinstance(place, list):
        place[_index(place, last, assignment)] = value
    else:
        place[last] = value


def _value(assignment: str, text: str) -> Any:
    """Return the value of an assignment; one with a template's field is the text as it stands."""
    try:
        value = read_yaml(text, f"--set {assignment!r}")
    except UserInputError as error:
        if _TEMPLATE_FIELD.search(text):
            return text
        path = assignment.partition("=")[0]
        told = str(error)
        if isinstance(error.__cause__, yaml.YAMLError):
            told = f"--set {assignment!r}: {text!r} is no YAML value"
        raise UserInputError(
            f"{told}; a text with signs of YAML is quoted twice: --set '{path}=\"...\"'"
        ) from error
    return text if isinstance(value, dict | list) and _TEMPLATE_FIELD.search(text) else value


def _step(place: Any, part: str, default: Any, assignment: str, parent: str) -> Any:
    if isinstance(place, list):
        index = _index(place, part, assignment)
        below = place[index] = _written_out(parent, place[index])
        if not isinstance(below, dict | list):
            raise UserInputError(
                f"--set {assignment!r}: {parent}.{part} is {below!r}, which has no fields"
            )
        return below
    if part not in place:
        # A list or a plug-in that is not written out is changed from what it is by default.
        is_plug_in = isinstance(default, dict) and "name" in default
        place[part] = default if is_plug_in or isinstance(default, list) else {}
    below = place[part] = _written_out(part, place[part])
    if not isinstance(below, dict | list):
        raise UserInputError(f"--set {assignment!r}: {part} holds {below!r}, which has no fields")
    return below


def _index(place: list[Any], part: str, assignment: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= len(place):
        raise UserInputError(
            f"--set {assignment!r}: {part!r} is no place in a list of {len(place)}"
        )
    return int(part)
