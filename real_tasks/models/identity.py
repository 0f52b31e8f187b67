"""Which model this is: told by the files of its checkpoint, or in memory by its weights."""

import hashlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from real_tasks.models.adapters import base_of
from real_tasks.models.checkpoints import ADAPTER, ADAPTER_WEIGHTS
from real_tasks.models.checksums import remembered_checksum
from real_tasks.models.weights import WEIGHTS_INDEX, weight_files
from real_tasks.vocabulary.errors import UserInputError

READ_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "vocab.bpe",
    "merges.txt",
    "tekken.json",
    "*.model",
    "*.tiktoken",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
"""What is read of a checkpoint beside its weights."""

N_SAMPLED = 61
"""Numbers that are looked at of every parameter; a prime, so that they lie in many columns."""

_FLUSHED_BELOW = 2.0**-14


def checkpoint_files(folder: Path, remote_code: bool = False) -> dict[str, Path]:
    """Return the files that make a checkpoint what it is, by their names within its folder.

    Notes, pictures, states of optimizers and weights in formats that are not read are none; those
    of an adapter's model are, and Python code that comes with it where it is run (``remote_code``).

    Raises:
        UserInputError: the list of the weights' files is damaged; an adapter that cannot be read.
    """
    base = base_of(folder)
    patterns = [*READ_FILES, ADAPTER, ADAPTER_WEIGHTS, WEIGHTS_INDEX]
    patterns += ["*.py"] if remote_code else []
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    weights = weight_files(folder) if base == folder else []
    every = sorted({path for path in (*found, *weights) if path.is_file()})
    files = {str(path.relative_to(folder)): path for path in every}
    if base == folder:
        return files
    return files | {f"base/{n}": path for n, path in checkpoint_files(base, remote_code).items()}


def checkpoint_content(
    folder: Path, remote_code: bool, memory: MutableMapping[str, str]
) -> dict[str, str]:
    """Return the SHA-256 of each of a checkpoint's files, by name; the same wherever it lies.

    Args:
        folder: of the checkpoint.
        remote_code: see `checkpoint_files`.
        memory: keeps what was found of a file as long as its place, inode, size and times of
            writing and of change stay, so that large files are read once. The time of change is
            none that a program sets: an edit that restores the time of writing is seen.

    Raises:
        UserInputError: see `checkpoint_files`.
    """
    files = checkpoint_files(folder, remote_code)
    return {name: remembered_checksum(path.resolve(), memory) for name, path in files.items()}


@torch.no_grad()
def weights_fingerprint(model: nn.Module) -> str:
    """Return ``sha256:`` and a hash of numbers sampled evenly from all the model's parameters.

    It is the same for a checkpoint wherever it lies, on whatever devices it is loaded, whatever its
    parameters are called, and as float32 or bfloat16; as float16 too, unless the file holds
    float32, whose values that type rounds otherwise. Training or merging anything into a parameter
    changes it; a change of single numbers (some rows of an embedding, say) can pass unseen, since
    `N_SAMPLED` numbers stand for a parameter. Another count of rows, as after
    ``resize_token_embeddings``, or quantised weights are other weights.

    Raises:
        UserInputError: some weights are nowhere: the model was made on torch's device ``meta``.
    """
    # Each once, as tied weights may be one parameter or two equal ones, depending on how they are
    # laid out over devices.
    digests = dict.fromkeys(_digest(tensor) for tensor in _parameters(model))
    return "sha256:" + hashlib.sha256(b"".join(digests)).hexdigest()


def _parameters(model: nn.Module) -> Iterator[Tensor]:
    for name, module in model.named_modules():
        for its_name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                yield _offloaded(module, f"{name}.{its_name}", its_name)
            else:
                yield parameter


def _offloaded(module: nn.Module, full_name: str, name: str) -> Tensor:
    """Return a parameter that accelerate keeps elsewhere until it is needed."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        weights: Any = getattr(one, "weights_map", None)
        if weights is not None:
            found: Tensor = weights[name]
            return found
    raise UserInputError(
        f"the parameter {full_name} is on the device meta, without values; load the model with "
        "from_pretrained"
    )


def _digest(tensor: Tensor) -> bytes:
    n = min(tensor.numel(), N_SAMPLED)
    places = torch.arange(n, device=tensor.device) * tensor.numel() // max(n, 1)
    values = _rounded(tensor.detach().reshape(-1)[places])
    shape = ",".join(str(size) for size in tensor.shape)
    return hashlib.sha256(shape.encode() + values.cpu().numpy().tobytes()).digest()


def _rounded(values: Tensor) -> Float[Tensor, "n"]:
    """Keep what every type of weights holds alike: 8 significant bits, of numbers not too small."""
    kept = values.to(torch.bfloat16).float()
    # Below its normal range float16 has fewer bits than bfloat16. This also makes -0 a 0.
    return torch.where(kept.abs() < _FLUSHED_BELOW, 0.0, kept)
