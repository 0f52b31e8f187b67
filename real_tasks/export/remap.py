"""Weights of one architecture declared as another that computes the same and has the biases.

Mistral, Ministral, Qwen2 and Phi-3 are Llama without a bias on ``o_proj`` and ``down_proj`` (Qwen2
with biases on q, k and v; Phi-3 with q, k, v in one matrix and gate and up in another). Where a
sliding window can cut, the same weights are a SmolLM3 checkpoint, which is Llama with a window a
layer; the window cannot cut where it is no shorter than the model's longest sequence.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import LlamaConfig, PreTrainedConfig, SmolLM3Config

from real_tasks.export.routes import OTHER_ROUTE
from real_tasks.vocabulary.errors import UserInputError

State = dict[str, Tensor]

_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "rope_parameters",
)


def llama_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of the same model as a Llama, or as a SmolLM3 where windows cut.

    The given one is of a Mistral, Ministral, Qwen2 or Phi-3 model; it is left as it is.

    Raises:
        UserInputError: only a part of each head is rotated (Phi-4-mini, say), which neither class
            can say.
    """
    given = config.to_dict()
    _check_rotation(given)
    shared: dict[str, Any] = {name: given.get(name) for name in _SHARED}
    shared["head_dim"] = given.get("head_dim") or config.hidden_size // config.num_attention_heads
    windows = _windows(config)
    # Llama's class refuses a width that the heads do not divide; SmolLM3's does not.
    if not any(windows) and config.hidden_size % config.num_attention_heads == 0:
        return LlamaConfig(**shared)
    return SmolLM3Config(
        **shared,
        no_rope_layers=[1] * config.num_hidden_layers,
        use_sliding_window=any(windows),
        sliding_window=config.sliding_window if any(windows) else None,
        layer_types=["sliding_attention" if cut else "full_attention" for cut in windows],
    )


def llama_state(config: PreTrainedConfig, state: Mapping[str, Tensor]) -> State:
    """Return the weights under Llama's names: fused matrices are cut into their parts."""
    kv_width = config.num_key_value_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    parts: State = {}
    for name, tensor in state.items():
        if ".qkv_proj." in name:
            q_width = tensor.shape[0] - 2 * kv_width
            cut = tensor.split([q_width, kv_width, kv_width])
            for part, values in zip(("q_proj", "k_proj", "v_proj"), cut, strict=True):
                parts[name.replace("qkv_proj", part)] = values
        elif ".gate_up_proj." in name:
            for part, values in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
                parts[name.replace("gate_up_proj", part)] = values
        else:
            parts[name] = tensor
    return parts


def _windows(config: PreTrainedConfig) -> list[bool]:
    """For every layer, whether its sliding window is shorter than the longest sequence."""
    window = getattr(config, "sliding_window", None)
    cuts = window is not None and config.max_position_embeddings > window
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [cuts and kind == "sliding_attention" for kind in kinds]


def _check_rotation(given: Mapping[str, Any]) -> None:
    share = (given.get("rope_parameters") or {}).get("partial_rotary_factor") or 1.0
    if share != 1.0:
        raise UserInputError(
            f"this model rotates only {share:g} of each head (partial_rotary_factor), which no "
            "architecture with a bias on the output projection does; please " + OTHER_ROUTE
        )
