"""Weights on disk, known by their files' headers: names, shapes and types, before any is read."""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import ABOUT_POINTER, POINTER

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
N_NAMED = 3

# Tables that transformers computes from the configuration, and masks that old versions stored.
_HARMLESS = re.compile(
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.(attn|attention)\.(masked_)?bias$"
    r"|(^|\.)position_ids$"
)
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


def check_weights(folder: Path, config: PreTrainedConfig) -> None:
    """Check, by headers alone, that a folder's weights are those that its configuration asks for.

    transformers sets the network up and fills it on torch's device ``meta``, by the same renaming
    as when it loads, so that no memory is taken.

    Raises:
        UserInputError: weights are missing, left over, of another shape, or quantised; the
            configuration asks for more layers than there can be, or for a network that cannot be.
    """
    stored = stored_weights(folder)
    _check_layers(folder, config, len(stored))
    integers = [n for n, s in stored.items() if s.dtype not in FLOATS and not _HARMLESS.search(n)]
    if integers:
        raise UserInputError(
            f"{folder}: the weights {_some(integers)} are of the type {stored[integers[0]].dtype}, "
            "as quantised ones are; expected floating-point numbers of 16 bits or more: give the "
            "checkpoint before it was quantised"
        )
    if find_spec("accelerate") is None:  # which transformers needs for the device; loading checks
        return
    tensors = {name: torch.empty(s.shape, device="meta") for name, s in stored.items()}
    mapping: Any = AutoModelForCausalLM._model_mapping
    if type(config) not in mapping:  # remote code: known when it is loaded
        return
    with quiet():
        try:
            _, info = mapping[type(config)].from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                device_map={"": "meta"},
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except Exception as error:  # whatever a network of such numbers comes to
            _refuse_network(folder, error)
    check_loaded(folder, info)


def check_loaded(folder: Path, info: Mapping[str, Any]) -> None:
    """Check what transformers says of weights that it has loaded.

    Args:
        folder: of the checkpoint, for the message.
        info: by ``output_loading_info``.

    Raises:
        UserInputError: weights are missing, left over, or of another shape.
    """
    if info.get("mismatched_keys"):
        name, there, wanted = sorted(info["mismatched_keys"], key=str)[0]
        raise UserInputError(
            f"the checkpoint {folder} does not fit its config.json: {name} has the shape "
            f"{tuple(there)}, by config.json (hidden_size, num_attention_heads, head_dim, "
            f"vocab_size, ...) it is {tuple(wanted)} ({len(info['mismatched_keys'])} weights of "
            "another shape in all); correct config.json, or fetch the checkpoint again"
        )
    missing = sorted(info["missing_keys"])
    unexpected = sorted(n for n in info["unexpected_keys"] if not _HARMLESS.search(n))
    if missing:
        beside = f" (and holds {_some(unexpected)}, which fit nowhere)" if unexpected else ""
        raise UserInputError(
            f"the checkpoint {folder} lacks {_some(missing)}{beside}; fetch or save it again"
        )
    if unexpected:
        raise UserInputError(
            f"the checkpoint {folder} holds {_some(unexpected)}, for which its config.json has no "
            "place, so that another model than this one would be measured; correct config.json "
            "(num_hidden_layers, attention_bias, mlp_bias, architecture) so that they are used, or "
            "remove them from the weights and save the checkpoint again"
        )


@torch.no_grad()
def check_finite(tensors: Iterator[tuple[str, Tensor]], where: str) -> None:
    """Check that weights hold neither NaN nor infinity.

    Args:
        tensors: by name.
        where: what they are of, for the message.

    Raises:
        UserInputError: names the first that does, and counts them.
    """
    bad = [name for name, tensor in tensors if tensor.is_floating_point() and not _finite(tensor)]
    if bad:
        raise UserInputError(
            f"{where}: {len(bad)} weights hold NaN or infinity: {_some(bad)}; a damaged checkpoint "
            "(fetch it again), one whose training failed, or numbers too large for float16 (choose "
            "model.dtype=bfloat16 or float32)"
        )


def check_stored_finite(files: Iterable[Path], dtype: torch.dtype) -> None:
    """Check that weights on disk are finite, and stay so in the type that they are loaded as.

    Raises:
        UserInputError: see `check_finite`.
    """
    for path in files:
        if path.suffix == ".safetensors":
            check_finite(_read(path, dtype), str(path))


def _read(path: Path, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, "pt") as file:
        for name in sorted(file.keys()):
            if not _HARMLESS.search(name):
                tensor = file.get_tensor(name)
                yield name, tensor.to(dtype) if dtype == torch.float16 else tensor


def _finite(tensor: Tensor) -> bool:
    # A sum is fast and spreads what is not finite; where it overflows, every number is looked at.
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _refuse_network(folder: Path, error: Exception) -> NoReturn:
    if "conversion" in str(error):  # of the experts' weights, which transformers makes one of
        raise UserInputError(
            f"the checkpoint {folder} lacks weights of its experts, or holds some of another shape "
            "than its config.json says; correct the number of experts there, or fetch it again"
        ) from error
    raise UserInputError(
        f"{folder / 'config.json'} describes no network that can be set up "
        f"({type(error).__name__}: {error}); correct it, or fetch the checkpoint again"
    ) from error


def _check_layers(folder: Path, config: PreTrainedConfig, n_tensors: int) -> None:
    n_layers = config.get_text_config().num_hidden_layers
    if n_layers > n_tensors:
        raise UserInputError(
            f"{folder / 'config.json'} asks for {n_layers} layers, but the weights are {n_tensors} "
            "tensors in all; correct num_hidden_layers, or fetch the checkpoint again"
        )


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


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:N_NAMED])
    return shown if len(names) <= N_NAMED else f"{shown} and {len(names) - N_NAMED} more"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting on what it sets up for a check."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
