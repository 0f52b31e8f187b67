"""Weights on disk, known by their files' headers: names, shapes and types, before any is read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError, safe_open

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import ABOUT_POINTER, POINTER

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"

_OTHER_FORMS = {
    POINTER: ABOUT_POINTER,
    b"<": "is a web page (HTML), saved in the place of the file; fetch it again",
    b"PK\x03\x04": "is a pickled or zipped file under another name; save the model with "
    "save_pretrained",
    b"GGUF": "is a GGUF file under another name; give the checkpoint it was converted from",
}


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: its shape, and its type as safetensors names it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the JSON mapping in a file of a checkpoint.

    Raises:
        UserInputError: it holds something else; says what, where that is known.
    """
    try:
        found = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError, OSError) as error:
        _refuse(path, f"cannot be read: {error}; fetch or save it again")
    if not isinstance(found, dict):
        raise UserInputError(
            f"{path} is damaged: it holds a {type(found).__name__}, expected a JSON mapping; fetch "
            "or save it again"
        )
    return found


def check_form(path: Path) -> None:
    """Check that a file is neither empty nor a git-lfs pointer in its place.

    Raises:
        UserInputError: it is; says how to get the file itself.
    """
    with path.open("rb") as file:
        beginning = file.read(32)
    if not beginning or beginning.startswith(POINTER):
        _refuse(path, "")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold a folder's weights, whether or not they are there.

    Raises:
        UserInputError: the list of files is damaged, or there are weights beside those it lists.
    """
    single, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    if not index.is_file():
        return [single]
    shards = sorted({folder / name for name in _weight_map(index).values()})
    if single.is_file() and shards != [single]:
        raise UserInputError(
            f"{folder} holds weights twice: {WEIGHTS}, and the files that {WEIGHTS_INDEX} lists; "
            "remove those that are not meant"
        )
    return shards


def stored_weights(folder: Path) -> dict[str, Stored]:
    """Return what the headers of a folder's weights say, by the name of the tensor.

    Raises:
        UserInputError: a file is no safetensors file, cut off, or a pointer; a name is in two
            files, or not in the one where the list of files says it is.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        for name, stored in header(path).items():
            if name in found:
                raise UserInputError(
                    f"{folder}: the weight {name} is in {found[name].file.name} and in {path.name}"
                    "; fetch or save the checkpoint again"
                )
            found[name] = stored
    index = folder / WEIGHTS_INDEX
    for name, file in (_weight_map(index) if index.is_file() else {}).items():
        if name not in found or found[name].file.name != file:
            raise UserInputError(
                f"{index} says that {file} holds the weight {name}, but it does not; fetch or save "
                "the checkpoint again"
            )
    return found


def header(path: Path) -> dict[str, Stored]:
    """Return what the header of a safetensors file says, by the name of the tensor.

    Raises:
        UserInputError: it is none, or cut off; says what it is, where that is known.
    """
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: Stored(path, tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        _refuse(path, f"cannot be read: it is damaged or cut off ({error}); fetch it again")


def _weight_map(index: Path) -> dict[str, str]:
    whole = read_mapping(index)
    given, facts = whole.get("weight_map"), whole.get("metadata")
    shards = given.values() if isinstance(given, dict) else ()
    if not isinstance(facts, dict) or not shards or not all(map(_is_shard, shards)):
        raise UserInputError(
            f"{index} is damaged: expected under weight_map the .safetensors file of this folder "
            "that holds each weight, and beside it a mapping under metadata; fetch or save the "
            "checkpoint again"
        )
    assert isinstance(given, dict)
    return given


def _is_shard(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _refuse(path: Path, otherwise: str) -> NoReturn:
    """Say what a file is in place of what was expected."""
    beginning = b""
    if path.is_file():
        with path.open("rb") as file:
            beginning = file.read(64)
        if not beginning:
            raise UserInputError(f"{path} is empty; fetch or save it again")
    said = next((s for b, s in _OTHER_FORMS.items() if beginning.lstrip().startswith(b)), otherwise)
    raise UserInputError(f"{path} {said}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} where a number is expected")
