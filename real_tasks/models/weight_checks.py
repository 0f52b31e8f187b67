"""Whether weights are those that a configuration asks for, and finite."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from real_tasks.models.weights import stored_weights
from real_tasks.vocabulary.errors import UserInputError, first_of

_FLOATS = ("F64", "F32", "F16", "BF16")
# Tables that transformers computes from the configuration, and masks that old versions stored.
_HARMLESS = re.compile(
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.(attn|attention)\.(masked_)?bias$"
    r"|(^|\.)position_ids$"
)


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
    integers = [n for n, s in stored.items() if s.dtype not in _FLOATS and not _HARMLESS.search(n)]
    if integers:
        raise UserInputError(
            f"{folder}: the weights {first_of(integers, 3)} are of the type "
            f"{stored[integers[0]].dtype}, as quantised ones are; expected floating-point numbers "
            "of 16 bits or more: give the checkpoint before it was quantised"
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
    """Check what transformers says of weights that it has loaded, by ``output_loading_info``.

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
        beside = f" (and holds {first_of(unexpected, 3)}, which fit nowhere)" if unexpected else ""
        raise UserInputError(
            f"the checkpoint {folder} lacks {first_of(missing, 3)}{beside}; fetch or save it again"
        )
    if unexpected:
        raise UserInputError(
            f"the checkpoint {folder} holds {first_of(unexpected, 3)}, for which its config.json "
            "has no place, so that another model than this one would be measured; correct "
            "config.json (num_hidden_layers, attention_bias, mlp_bias, architecture) so that they "
            "are used, or remove them from the weights and save the checkpoint again"
        )


@torch.no_grad()
def check_finite(tensors: Iterator[tuple[str, Tensor]], where: str) -> None:
    """Check that weights, by name, hold neither NaN nor infinity; ``where`` says whose they are.

    Raises:
        UserInputError: names the first that does, and counts them.
    """
    bad = [name for name, tensor in tensors if tensor.is_floating_point() and not _finite(tensor)]
    if bad:
        raise UserInputError(
            f"{where}: {len(bad)} weights hold NaN or infinity: {first_of(bad, 3)}; a damaged "
            "checkpoint (fetch it again), one whose training failed, or numbers too large for "
            "float16 (choose model.dtype=bfloat16 or float32)"
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
