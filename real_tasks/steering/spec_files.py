"""Files of a steering spec: tensors in safetensors, everything else in JSON.

Format 3 lists edits; format 2, which is read, had one that adds.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from real_tasks.steering.edits import Edit
from real_tasks.steering.gates import GATES, FittedGate
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.scopes import PromptEnds, Scope
from real_tasks.vocabulary.types import ModelShape, ModuleId

TENSORS_FILE = "steering.safetensors"
FACTS_FILE = "steering.json"
FORMAT_VERSION = 3
_READ = (2, FORMAT_VERSION)

T = TypeVar("T")


def check_room(folder: Path) -> None:
    """Check that a spec can be written: into a folder that is new, empty, or holds one alone.

    Raises:
        UserInputError: something else is there, or nothing can be written there.
    """
    others = set()
    if folder.exists():
        others = {folder.name} if not folder.is_dir() else {one.name for one in folder.iterdir()}
    if others - {TENSORS_FILE, FACTS_FILE}:
        raise UserInputError(
            f"{str(folder)!r} is there and holds something else than a steering spec; name a new "
            "or an empty folder"
        )
    above = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    try:
        with TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise UserInputError(
            f"{str(folder)!r} cannot be written ({above}: {error.strerror}); name another folder"
        ) from error


def write_spec(folder: Path, edits: Sequence[Edit], facts: Mapping[str, Any]) -> None:
    """Write both files into a folder, made if need be."""
    said = {
        "format_version": FORMAT_VERSION,
        **facts,
        "shape": asdict(facts["shape"]),
        "edits": [_written(edit) for edit in edits],
    }
    text = json.dumps(said, indent=2, ensure_ascii=False)
    # The file may not hold two tensors that share memory.
    tensors = {
        f"{number}.{name}": tensor.detach().cpu().contiguous().clone()
        for number, edit in enumerate(edits)
        for name, tensor in _tensors_of(edit).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / TENSORS_FILE)
    (folder / TENSORS_FILE).chmod(0o644)  # it is written for its owner alone
    (folder / FACTS_FILE).write_text(text + "\n", encoding="utf-8")


def read_spec(folder: Path, make: Callable[..., T]) -> T:
    """Read both files and make a spec of them; tensors are on the CPU.

    Raises:
        UserInputError: the folder holds no steering spec, a damaged one, or another version.
    """
    tensors, facts = _read(folder)
    version = facts.pop("format_version", None)
    if version not in _READ:
        raise UserInputError(
            f"{folder}: steering spec of format {version}, this program reads "
            f"{' and '.join(map(str, _READ))}; make it again by running its experiment again"
        )
    try:
        edits = _first_edits(facts, tensors) if version == 2 else _edits(facts, tensors)
        return make(edits=edits, shape=ModelShape(**facts.pop("shape")), **facts)
    except UserInputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError) as error:
        raise UserInputError(
            f"{folder}: the steering spec is damaged ({error}); make it again"
        ) from error


def _tensors_of(edit: Edit) -> dict[str, Tensor]:
    gate = edit.gate.tensors if edit.gate else {}
    return {
        **edit.tensors,
        "weights": edit.weights,
        **{f"gate.{name}": tensor for name, tensor in gate.items()},
    }


def _written(edit: Edit) -> dict[str, Any]:
    scope, gate = edit.scope, edit.gate.gate if edit.gate else None
    return {
        "operator": _plug_in(OPERATORS.name_of(edit.operator), edit.operator),
        "modules": [asdict(module) for module in edit.modules],
        "scope": scope.model_dump() if isinstance(scope, PromptEnds) else scope,
        "gate": _plug_in(GATES.name_of(gate), gate) if gate else None,
        "keep_norm": edit.keep_norm,
    }


def _plug_in(name: str, made: Any) -> dict[str, Any]:
    return {"name": name, "params": made.params.model_dump(mode="json")}


def _edits(facts: dict[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Edit, ...]:
    return tuple(_edit(said, _of(tensors, f"{n}.")) for n, said in enumerate(facts.pop("edits")))


def _of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _edit(said: Mapping[str, Any], tensors: dict[str, Tensor]) -> Edit:
    scope: Scope = said["scope"]
    gate, gated = said["gate"], _of(tensors, "gate.")
    return Edit(
        modules=tuple(ModuleId(**module) for module in said["modules"]),
        weights=tensors.pop("weights"),
        tensors={name: tensor for name, tensor in tensors.items() if name[:5] != "gate."},
        operator=OPERATORS.made(said["operator"]["name"], said["operator"]["params"]),
        scope=PromptEnds(**scope) if isinstance(scope, dict) else scope,
        gate=FittedGate(GATES.made(gate["name"], gate["params"]), gated) if gate else None,
        keep_norm=bool(said["keep_norm"]),
    )


def _first_edits(facts: dict[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Edit, ...]:
    """Return the one edit of a spec of format 2."""
    return (
        Edit(
            modules=tuple(ModuleId(**module) for module in facts.pop("modules")),
            tensors={"direction": tensors["directions"], "scale": tensors["sigmas"]},
            weights=tensors["strengths"],
            scope=facts.pop("token_scope"),
        ),
    )


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    for name in (TENSORS_FILE, FACTS_FILE):
        if not (folder / name).is_file():
            raise UserInputError(
                f"{str(folder)!r} is no steering spec: {name} is missing; expected a folder "
                "written by SteeringSpec.save"
            )
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        return load_file(folder / TENSORS_FILE), dict(facts)
    except (SafetensorError, TypeError, ValueError, OSError, RecursionError) as error:
        raise UserInputError(
            f"{folder}: the steering spec is damaged ({error}); make it again"
        ) from error
