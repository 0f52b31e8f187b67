"""Configurations from files and from ``--set``, and back to commented YAML."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from real_tasks.evaluation.judges import JUDGES
from real_tasks.experiment.methods.known import method_names, with_methods
from real_tasks.experiment.parameters import faults_of
from real_tasks.experiment.plug_ins import resolved_with
from real_tasks.experiment.prepared import Prepared, prepare
from real_tasks.experiment.transfer import PreparedTransfer, prepare_transfer, resolved_transfer
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import Faults, UserInputError
from real_tasks.vocabulary.experiment_config import DEMO_TRANSFER, ExperimentConfig, TransferConfig
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.rescore_config import RescoreConfig
from real_tasks.vocabulary.yaml_text import MAX_CHARACTERS, read_yaml

C = TypeVar("C", bound=BaseModel)
T = TypeVar("T")

_TEMPLATE_FIELD = re.compile(r"\{(question|answer|context)\}")

_PLUG_INS: dict[str, Registry[Any]] = {
    "model": EMBEDDED_MODELS,
    "behaviour": BEHAVIOURS,
    "behaviours": BEHAVIOURS,
    "localizer": LOCALIZERS,
    "baselines": LOCALIZERS,
    "judge": JUDGES,
}
"""Whose parameters stand below a field."""


def load_config(
    paths: Path | Sequence[Path] | None, assignments: Sequence[str]
) -> ExperimentConfig:
    """Return the configuration of the files, changed by ``assignments``; without any, the demo's.

    Args:
        paths: YAML files, laid one over the other from left to right, see `merged`.
        assignments: ``a.dotted.path=value``, the last word.

    Raises:
        UserInputError: all that is wrong: unreadable files, unknown keys, values out of range.
    """
    return _loaded(paths, assignments, _resolved)


def load_prepared(paths: Path | Sequence[Path] | None, assignments: Sequence[str]) -> Prepared:
    """Return the experiment of the files and assignments, ready to start; see `load_config`.

    Raises:
        UserInputError: all that is wrong with files, fields, data and the model's headers.
    """
    return _loaded(paths, assignments, prepare)


def load_transfer_config(
    paths: Path | Sequence[Path] | None, assignments: Sequence[str]
) -> TransferConfig:
    """Return the configuration of a transfer; see `load_config`.

    Fields of the experiment may stand at the top level, as in an experiment's file, so that the
    same files serve both. Without a file the behaviours are the demo's.

    Args:
        paths: YAML files.
        assignments: ``a.dotted.path=value``.

    Raises:
        UserInputError: as `load_config`; fewer than two behaviours.
    """
    return _loaded_transfer(paths, assignments, lambda config, _: resolved_transfer(config))


def load_prepared_transfer(
    paths: Path | Sequence[Path] | None, assignments: Sequence[str]
) -> PreparedTransfer:
    """Return the transfer of the files and assignments, ready to start; see `load_transfer_config`.

    Raises:
        UserInputError: all that is wrong with files, fields, data and the model's headers.
    """
    return _loaded_transfer(paths, assignments, prepare_transfer)


def _loaded_transfer(
    paths: Path | Sequence[Path] | None,
    assignments: Sequence[str],
    made: Callable[[TransferConfig, Collection[str]], T],
) -> T:
    defaults, faults = ExperimentConfig().model_dump(mode="json"), Faults()
    tree = _tree(paths, assignments, defaults | {"experiment": defaults}, faults)
    own = {name: tree.pop(name) for name in TransferConfig.model_fields if name in tree}
    shared = merged(_mapping(own.get("experiment") or {}, "experiment"), tree)
    if not paths:
        own = {"behaviours": DEMO_TRANSFER.behaviours} | own
    return _made(_validated(TransferConfig, own | {"experiment": shared}, faults), made, faults)


def load_rescore_config(path: Path | None, given: Mapping[str, Any]) -> RescoreConfig:
    """Return the configuration of a re-scoring: the file's, changed by what is given and not None.

    Raises:
        UserInputError: an unreadable file, an unknown key, a value out of range.
    """
    tree, faults = {} if path is None else _read(path), Faults()
    tree |= {k: v for k, v in given.items() if v is not None}
    return _complete(_validated(RescoreConfig, tree, faults), faults)


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
    return {"name": value} if isinstance(value, str) and key in _PLUG_INS else value


def _renamed(under: Any, over: Any) -> bool:
    return "name" in under and "name" in over and under["name"] != over["name"]


def commented_yaml(config: ExperimentConfig | TransferConfig) -> str:
    """Return the configuration as YAML, every field under its description; it loads back."""
    return "\n".join(_lines(config, 0)) + "\n"


def _loaded(
    paths: Path | Sequence[Path] | None,
    assignments: Sequence[str],
    made: Callable[[ExperimentConfig, Collection[str]], T],
) -> T:
    """Read an experiment's configuration and make something of it."""
    faults = Faults()
    tree = _tree(paths, assignments, ExperimentConfig().model_dump(mode="json"), faults)
    return _made(_validated(ExperimentConfig, tree, faults), made, faults)


def _made(config: C | None, made: Callable[[C, Collection[str]], T], faults: Faults) -> T:
    """Make something of a configuration, if there is one; all faults are told at once."""
    found = None
    if config is not None:
        with faults.told():
            found = made(config, faults.doubtful)
    return _complete(found, faults)


def _resolved(config: ExperimentConfig, doubtful: Collection[str]) -> ExperimentConfig:
    faults = Faults(doubtful)
    return _complete(resolved_with(config, faults), faults)


def _complete(found: T | None, faults: Faults) -> T:
    faults.tell()
    assert found is not None, "without faults there is something"
    return found


def _tree(
    paths: Path | Sequence[Path] | None,
    assignments: Sequence[str],
    defaults: dict[str, Any],
    faults: Faults,
) -> dict[str, Any]:
    files = [paths] if isinstance(paths, Path) else list(paths or ())
    tree: dict[str, Any] = {}
    for path in files:
        with faults.told():
            tree = merged(tree, _read(path))
    faults.tell()  # Of what is missing nothing can be said.
    for assignment in assignments:
        with faults.told(spoils=assignment.partition("=")[0]):
            _assign(tree, assignment, defaults)
    return tree


def _validated(model: type[C], tree: dict[str, Any], faults: Faults) -> C | None:
    """Return the configuration, with defaults in the place of what is wrong; None if that fails."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        for fault, line in faults_of(error):
            with faults.told():
                raise UserInputError(line + _hint(model, fault)) from error
        faults.doubtful |= {_taken_out(tree, fault["loc"]) for fault in error.errors()}
    try:
        return model.model_validate(tree)
    except ValidationError:
        return None


def _taken_out(tree: dict[str, Any], place: Sequence[int | str]) -> str:
    """Take what is at the place out of the mapping that it is in, and return its dotted path."""
    path: list[str] = []
    below: Any = tree
    for part in map(str, place):
        if not isinstance(below, dict) or part not in below:
            break
        holder, below = below, below[part]
        path.append(part)
    if path:
        del holder[path[-1]]
    return ".".join(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError as error:
        raise UserInputError(
            f"no configuration at {path}; `real config > {path}` writes one to start from"
        ) from error
    except (OSError, ValueError) as error:
        raise UserInputError(f"{path} cannot be read as YAML: {error}") from error
    tree = read_yaml(text, str(path))
    if tree is None:
        return {}
    return _mapping(tree, str(path))


def _mapping(tree: Any, where: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise UserInputError(f"{where} holds a {type(tree).__name__}, expected a mapping of fields")
    return tree


def _assign(tree: dict[str, Any], assignment: str, defaults: dict[str, Any]) -> None:
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


def _hint(model: type[BaseModel], fault: Any) -> str:
    if fault["type"] != "extra_forbidden":
        return ""
    known = _fields_at(model, fault["loc"][:-1])
    close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
    return f"\n  did you mean {close[0]}?" if close else f"\n  known: {', '.join(known)}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model of a field that is one, may be one, or is a list of them."""
    candidates = (annotation, *get_args(annotation))
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))


def _lines(model: BaseModel, depth: int, place: str = "") -> list[str]:
    pad, lines = "  " * depth, []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        lines.append(f"{pad}# {field.description}{_all_methods(model, name, depth)}")
        if name == "params":
            value = _typed_params(model, place) or value
        if isinstance(value, BaseModel) and type(value).model_fields:
            lines += [f"{pad}{name}:", *_lines(value, depth + 1, name)]
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            lines.append(f"{pad}{name}:")
            for item in value:
                first, *others = _lines(item, depth + 2, name)
                lines += [f"{pad}  -", first, *others]
        else:
            plain = model.model_dump(mode="json")[name]
            text = yaml.safe_dump(plain, default_flow_style=True, width=10**6)
            lines.append(f"{pad}{name}: {text.removesuffix('...' + chr(10)).strip()}")
    return lines


def _all_methods(model: BaseModel, name: str, depth: int) -> str:
    """Name the methods of an experiment that leaves them to its localizers."""
    if depth or name != "methods" or not isinstance(model, ExperimentConfig) or model.methods:
        return ""
    return f", here {', '.join(method_names(with_methods(model)))}"


def _typed_params(model: BaseModel, place: str) -> BaseModel | None:
    """The parameters as the plug-in in that field declares them, for their descriptions."""
    name = model.path if isinstance(model, ModelConfig) else getattr(model, "name", None)
    registry = _PLUG_INS.get(place)
    if registry is None or name not in registry:
        return None
    params: BaseModel = registry[str(name)].Params.model_validate(model.model_dump()["params"])
    return params
