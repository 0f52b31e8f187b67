"""Parameters of plug-ins, and what is wrong with them, in words."""

from typing import Any

from pydantic import BaseModel, ValidationError

from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.registry import Registry


def complete(registry: Registry[Any], plug_in: PlugIn, where: str) -> PlugIn:
    """Return a plug-in with its parameters checked and all named.

    ``where`` a configuration has it is for messages.

    Raises:
        UserInputError: it is unknown, or its parameters do not fit.
    """
    params_type = registry[plug_in.name].Params
    try:
        params = params_type.model_validate(plug_in.params)
    except ValidationError as error:
        raise UserInputError(
            explained(error, f"{where}.params") + _about_parameters(params_type, error)
        ) from error
    return plug_in.model_copy(update={"params": params.model_dump(mode="json")})


def _about_parameters(params_type: type[BaseModel], error: ValidationError) -> str:
    """Say what the parameters at fault are, and which there are where one is unknown."""
    fields, lines = params_type.model_fields, []
    for name in dict.fromkeys(str(fault["loc"][0]) for fault in error.errors() if fault["loc"]):
        if name in fields:
            lines.append(f"\n  {name}: {fields[name].description}")
    if any(fault["type"] == "extra_forbidden" for fault in error.errors()):
        lines.append(f"\n  known: {', '.join(fields) or 'no parameters'}")
    return "".join(lines)


def explained(error: ValidationError, where: str = "") -> str:
    """Return a validation error as lines of ``dotted.path: what is wrong (found ...)``."""
    return "\n".join(line for _, line in faults_of(error, where))


def faults_of(error: ValidationError, where: str = "") -> list[tuple[Any, str]]:
    """Return the faults of a validation error, each with its line of `explained`.

    That a list is too short since a value in it is wrong is none of its own.
    """
    lines, places = [], [fault["loc"] for fault in error.errors()]
    for fault in error.errors():
        place = fault["loc"]
        if any(other != place and other[: len(place)] == place for other in places):
            continue
        path = ".".join(str(part) for part in ([where] if where else []) + list(place))
        found = "" if fault["type"] == "missing" else f" (found {_shown(fault['input'])})"
        message = fault["msg"].removeprefix("Value error, ")
        message = "unknown key" if fault["type"] == "extra_forbidden" else message
        if fault["type"] == "string_type":
            found += "; a text that YAML reads otherwise is quoted, in --set twice: 'path=\"...\"'"
        lines.append((fault, f"{path}: {message}{found}"))
    return lines


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
