"""Configurations from files and from ``--set``, and back to commented YAML."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from real_tasks.behaviours import BEHAVIOURS
from real_tasks.checks import explained, resolved
from real_tasks.config import ExperimentConfig, ModelConfig
from real_tasks.errors import UserInputError
from real_tasks.localizers import LOCALIZERS
from real_tasks.organism import EMBEDDED_MODELS
from real_tasks.registry import Registry


def load_config(path: Path | None, assignments: Sequence[str]) -> ExperimentConfig:
    """Return the configuration of ``path`` (the demo's without one), changed by ``assignments``.

    Raises:
        UserInputError: an unreadable file, an unknown key, a value out of range.
    """
    tree = _read(path) if path else {}
    for assignment in assignments:
        _assign(tree, assignment)
    try:
        return resolved(ExperimentConfig.model_validate(tree))
    except ValidationError as error:
        raise UserInputError(explained(error) + _hint(error)) from error


def commented_yaml(config: ExperimentConfig) -> str:
    """Return the configuration as YAML, every field under its description; it loads back."""
    return "\n".join(_lines(config, 0)) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserInputError(
            f"no configuration at {path}; `real config > {path}` writes one to start from"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserInputError(f"{path} cannot be read as YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserInputError(f"{path} holds a {type(tree).__name__}, expected a mapping of fields")
    return tree


def _assign(tree: dict[str, Any], assignment: str) -> None:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise UserInputError(f"--set {assignment!r}: expected a.dotted.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserInputError(f"--set {assignment!r}: {text!r} is no YAML value") from error
    *parents, last = path.split(".")
    place: Any = tree
    default: Any = ExperimentConfig().model_dump(mode="json")
    for part in parents:
        default = default.get(part) if isinstance(default, dict) else None
        place = _step(place, part, default, assignment)
    if isinstance(place, list):
        place[_index(place, last, assignment)] = value
    else:
        place[last] = value


def _step(place: Any, part: str, default: Any, assignment: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, assignment)]
    if part not in place:
        # A list or a plug-in that is not written out is changed from what it is by default.
        is_plug_in = isinstance(default, dict) and "name" in default
        place[part] = default if is_plug_in or isinstance(default, list) else {}
    below = place[part]
    if not isinstance(below, dict | list):
        raise UserInputError(f"--set {assignment!r}: {part} holds {below!r}, which has no fields")
    return below


def _index(place: list[Any], part: str, assignment: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise UserInputError(
            f"--set {assignment!r}: {part!r} is no place in a list of {len(place)}"
        )
    return int(part)


def _hint(error: ValidationError) -> str:
    hints = []
    for fault in error.errors():
        if fault["type"] == "extra_forbidden":
            known = _fields_at(fault["loc"][:-1])
            close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
            hints.append(f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}")
    return "".join(f"\n  {hint}" for hint in hints)


def _fields_at(path: tuple[int | str, ...]) -> list[str]:
    model: Any = ExperimentConfig()
    for part in path:
        model = model[0] if isinstance(part, int) else getattr(model, part)
    return list(type(model).model_fields)


def _lines(model: BaseModel, depth: int) -> list[str]:
    pad, lines = "  " * depth, []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        lines.append(f"{pad}# {field.description}")
        if name == "params":
            value = _typed_params(model) or value
        if isinstance(value, BaseModel) and type(value).model_fields:
            lines += [f"{pad}{name}:", *_lines(value, depth + 1)]
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            lines.append(f"{pad}{name}:")
            for item in value:
                first, *others = _lines(item, depth + 2)
                lines += [f"{pad}  -", first, *others]
        else:
            plain = model.model_dump(mode="json")[name]
            text = yaml.safe_dump(plain, default_flow_style=True, width=10**6)
            lines.append(f"{pad}{name}: {text.removesuffix('...' + chr(10)).strip()}")
    return lines


def _typed_params(model: BaseModel) -> BaseModel | None:
    """The parameters as their plug-in declares them, for the sake of their descriptions."""
    name = model.path if isinstance(model, ModelConfig) else getattr(model, "name", None)
    registries: tuple[Registry[Any], ...] = (LOCALIZERS, BEHAVIOURS, EMBEDDED_MODELS)
    for registry in registries:
        if name in registry:
            params: BaseModel = registry[str(name)].Params.model_validate(
                model.model_dump()["params"]
            )
            return params
    return None
