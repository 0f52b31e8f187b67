"""Which GGUF file a model's path means, and what the file's header says; no weights are read."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from real_tasks.models.known import located
from real_tasks.models.weights import check_form
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import expanded

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_VOCABULARY = "tokenizer.ggml."
"""What the keys of the vocabulary's arrays begin with, which are counted and not read."""


@dataclass(frozen=True)
class GgufHeader:
    """What a file says before its weights.

    Attributes:
        facts: its metadata by key; of a vocabulary only the length.
        sizes: numbers that a tensor holds, by its name.
        rope_factors: what rotary frequencies are divided by, where the file holds that.
    """

    facts: dict[str, Any]
    sizes: dict[str, int]
    rope_factors: np.ndarray | None

    @property
    def architecture(self) -> str:
        """The architecture, by the name that it has in GGUF."""
        return str(self.facts["general.architecture"])

    def says(self, key: str) -> Any:
        """Return what is said of the architecture under a key, None where nothing is."""
        return self.facts.get(f"{self.architecture}.{key}")


def gguf_file(path: str) -> Path | None:
    """Return the GGUF file that a model's path means: itself, or the one in a folder.

    Returns:
        None where the path means another thing: a checkpoint's folder, a Hugging Face id.

    Raises:
        UserInputError: a file that is none, is not there, or is one of several; several in a
            folder without another checkpoint.
    """
    path = located(path).path
    found = expanded(path)
    if found.is_dir():
        return _only_one(found)
    if not found.is_file():
        if path.endswith(SUFFIX):
            raise UserInputError(f"there is no file {str(found)!r}; correct model.path")
        return None
    check_form(found)
    with found.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserInputError(
                f"{found} is a file but no GGUF file (those begin with GGUF); give a GGUF file, or "
                "the folder of a Hugging Face checkpoint"
            )
    part = _PART.search(found.name)
    if part is not None:
        raise UserInputError(
            f"{found} is part {int(part[1])} of {int(part[2])} of a GGUF file that was split; join "
            "them (llama.cpp's `llama-gguf-split --merge FIRST_PART WHOLE.gguf`) and give the whole"
        )
    return found


def _only_one(folder: Path) -> Path | None:
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if not found or any(folder.glob("*.safetensors")):
        return None
    if len(found) > 1 and not all(map(_PART.search, (path.name for path in found))):
        raise UserInputError(
            f"{folder} holds several GGUF files: {', '.join(path.name for path in found)}; name "
            f"one, as in model.path={found[0]}"
        )
    return gguf_file(str(found[0]))


def read_header(file: Path) -> GgufHeader:
    """Return what a GGUF file says, checked: it is whole, and its weights can be read.

    Raises:
        UserInputError: the file is cut off or damaged, holds no architecture
            or quantised weights of a type that cannot be read.
    """
    # Imported where it is used: few models are GGUF files.
    from gguf import GGUFReader, GGUFValueType

    try:
        reader = GGUFReader(file)
        facts = {
            name: len(field.data)
            if name.startswith(_VOCABULARY) and field.types[0] == GGUFValueType.ARRAY
            else field.contents()
            for name, field in reader.fields.items()
        }
    except Exception as error:  # whatever the damage comes to
        _refuse_unread(file, error)
    if "general.architecture" not in facts or not reader.tensors:
        raise UserInputError(
            f"{file} holds no language model: no general.architecture, or no weights; fetch it "
            "again, or give another file"
        )
    factors = next((t.data for t in reader.tensors if t.name == "rope_freqs.weight"), None)
    _check_types(file, {tensor.tensor_type for tensor in reader.tensors})
    sizes = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    return GgufHeader(facts, sizes, None if factors is None else np.array(factors))


def _refuse_unread(file: Path, error: Exception) -> NoReturn:
    if "GGMLQuantizationType" in str(error):
        _refuse_type(file, str(error))
    raise UserInputError(
        f"{file} is damaged or cut off ({type(error).__name__}: {error}); fetch it again"
    ) from error


def _check_types(file: Path, types: set[Any]) -> None:
    from gguf import GGML_QUANT_SIZES, dequantize

    for kind in sorted(types):
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except (NotImplementedError, KeyError):
            _refuse_type(file, kind.name)


def _refuse_type(file: Path, kind: str) -> NoReturn:
    raise UserInputError(
        f"{file} holds weights quantised as {kind}, which cannot be read here; give the model as "
        "F16, BF16, Q8_0 or Q4_K_M, or the checkpoint that it was made of"
    )
