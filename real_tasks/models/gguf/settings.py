"""What a GGUF file says of a network, put into transformers' configuration where it is left out.

transformers takes a part of what such a file says, another part for each architecture, and lets the
rest be what its classes default to.
"""

import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from transformers import PreTrainedConfig

from real_tasks.models.gguf.files import GgufHeader
from real_tasks.vocabulary.errors import UserInputError

_FIELDS = {
    "context_length": "max_position_embeddings",
    "feed_forward_length": "intermediate_size",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""By the key of a GGUF file, the field of a configuration, where its class has that."""
_PARTIAL = ("phi3", "stablelm")
"""Architectures that may turn only a part of each head by its position."""
_LARGEST_GEMMA = (("gemma2", 46), ("gemma3_text", 62))
_LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA_3_POSITIONS = 8192


def complete(file: Path, config: PreTrainedConfig, header: GgufHeader) -> None:
    """Put into a configuration what the file says of it.

    Raises:
        UserInputError: it says something that the architecture has no field for.
    """
    for key, name in _FIELDS.items():
        value = header.says(key)
        if value is not None and hasattr(config, name):
            setattr(config, name, value)
    if config.model_type == "gpt2":
        config.n_inner = header.says("feed_forward_length")
    if hasattr(config, "query_pre_attn_scalar"):
        # Not in the file; llama.cpp tells the largest Gemma 2 and 3 apart by their depth.
        largest = (config.model_type, config.num_hidden_layers) in _LARGEST_GEMMA
        width = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = width if largest else config.head_dim
    base, scaling = header.says("rope.freq_base"), _scaling(file, header)
    rope: dict[str, Any] | None = getattr(config, "rope_parameters", None)
    if rope is None:
        if scaling or header.rope_factors is not None:
            _refuse(file, "scales positions, which its architecture does not do")
        return
    # Where kinds of layers have frequencies of their own, the file speaks of those that see all.
    whole = rope.get("full_attention", rope)
    whole.update(({} if base is None else {"rope_theta": float(base)}) | scaling)
    _set_turned_part(file, config, header, whole)
    if header.rope_factors is not None and not np.allclose(header.rope_factors, 1):
        whole.update(_as_llama_3(file, header.rope_factors, float(whole["rope_theta"])))
    config.rope_parameters = rope


def _scaling(file: Path, header: GgufHeader) -> dict[str, Any]:
    kind, factor = header.says("rope.scaling.type"), header.says("rope.scaling.factor")
    if kind in (None, "none"):
        if header.says("rope.scale_linear") in (None, 1.0):
            return {}
        kind, factor = "linear", header.says("rope.scale_linear")
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": factor}
    original = header.says("rope.scaling.original_context_length")
    if kind == "yarn" and factor and original:
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    return _refuse(file, f"scales positions as {kind!r}, which is not read of such a file")


def _set_turned_part(
    file: Path, config: PreTrainedConfig, header: GgufHeader, rope: dict[str, Any]
) -> None:
    turned = header.says("rope.dimension_count")
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if turned is None or (turned == width and "partial_rotary_factor" not in rope):
        return
    if turned != width and config.model_type not in _PARTIAL:
        _refuse(file, f"turns {turned} of a head's {width} numbers by position, not all of them")
    rope["partial_rotary_factor"] = turned / width


def _as_llama_3(file: Path, factors: np.ndarray, base: float) -> dict[str, Any]:
    """Return the parameters of Llama 3's scaling that give these factors.

    A file holds only what the frequencies are divided by: nothing for fast ones, the whole factor
    for slow ones, between them something in between.
    """
    whole, n = float(factors.max()), len(factors)
    turns = _LLAMA_3_POSITIONS * base ** -(np.arange(n) / n) / (2 * math.pi)
    low, high = _LLAMA_3.values()
    share = np.clip((turns - low) / (high - low), 0, 1)
    expected = 1 / ((1 - share) / whole + share)
    if not np.allclose(factors, expected, rtol=1e-3):
        _refuse(file, "divides rotary frequencies (rope_freqs.weight) otherwise than Llama 3 does")
    positions = {"original_max_position_embeddings": _LLAMA_3_POSITIONS}
    return {"rope_type": "llama3", "factor": whole, **_LLAMA_3, **positions}


def _refuse(file: Path, what: str) -> NoReturn:
    raise UserInputError(
        f"{file} {what}, so that another model than this one would be measured; give the "
        "checkpoint that it was made of"
    )
