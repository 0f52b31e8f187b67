"""Configurations from files and from ``--set``: all that is wrong with one is told at once."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from real_tasks.experiment.assignments import assign, merged
from real_tasks.experiment.parameters import faults_of
from real_tasks.experiment.plug_ins import resolved
from real_tasks.experiment.prepared import Prepared, prepare
from real_tasks.experiment.transfer import PreparedTransfer, prepare_transfer, resolved_transfer
from real_tasks.vocabulary.errors import Faults, UserInputError
from real_tasks.vocabulary.experiment_config import DEMO_TRANSFER, ExperimentConfig, TransferConfig
from real_tasks.vocabulary.rescore_config import RescoreConfig
from real_tasks.vocabulary.yaml_text import MAX_CHARACTERS, read_yaml

C = TypeVar("C", bound=BaseModel)
T = TypeVar("T")


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
    return _loaded(paths, assignments, resolved)


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
            assign(tree, assignment, defaults)
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
