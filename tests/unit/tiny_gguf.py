"""GGUF files of tiny random models, laid out as llama.cpp's converter lays them out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel

TOKENS = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789Ġ.,:?!",
)
TOKENS += ("ab", "abc")
TOKENS += tuple(f"<{i}>" for i in range(68 - len(TOKENS)))
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}A: "
_NAMES = {"qwen2": "qwen2", "gemma3_text": "gemma3"}
Change = Callable[[gguf.GGUFWriter], None]


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    quantised: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    change: Change = lambda _: None,
    tokenizer: dict[str, Any] | None = None,
    template: str = TEMPLATE,
    weights: dict[str, np.ndarray] | None = None,
    architecture: str | None = None,
) -> Path:
    """Write a model with a byte-level tokenizer of `TOKENS`; matrices are quantised as asked.

    ``change`` adds keys, ``tokenizer`` and ``weights`` (by their names there) replace entries; None
    leaves one out.
    """
    config = model.config
    name = architecture or _NAMES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, name)
    writer.add_name("tiny")
    _add_shape(writer, config)
    change(writer)
    known = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": list(TOKENS),
        "token_type": [3 if token[0] == "<" else 1 for token in TOKENS],
        "merges": ["a b", "ab c"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
        "unknown_token_id": 3,
        "add_bos_token": True,
    }
    for key, value in (known | (tokenizer or {})).items():
        if value is not None:
            _add(writer, f"tokenizer.ggml.{key}", value)
    writer.add_chat_template(template)
    for key, value in (tensors_of(model, name) | (weights or {})).items():
        if value is not None:
            kind = quantised if value.ndim > 1 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(key, gguf.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors_of(model: PreTrainedModel, name: str) -> dict[str, np.ndarray]:
    """A model's weights under their names in GGUF, in llama.cpp's order of rows."""
    config = model.config.get_text_config()
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = {}
    for theirs, weight in model.state_dict().items():
        if theirs == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, end = theirs.rpartition(".")
        ours = f"{names.get_name(stem)}.{end}"
        value = weight.numpy()
        if name == "llama" and (".attn_q." in ours or ".attn_k." in ours):
            heads = config.num_attention_heads if "_q." in ours else config.num_key_value_heads
            halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
            value = halves.swapaxes(1, 2).reshape(value.shape)
        if name in ("gemma2", "gemma3") and "norm" in ours:
            value = value + 1
        if name == "gpt2" and value.ndim > 1 and "embd" not in ours and ours != "output.weight":
            value = value.T
        found[ours] = np.ascontiguousarray(value)
    return found


def _add_shape(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    heads, rope = config.num_attention_heads, getattr(config, "rope_parameters", None)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    inner = 4 * config.hidden_size if config.model_type == "gpt2" else config.intermediate_size
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    for name in ("rms_norm_eps", "layer_norm_eps", "norm_epsilon", "layer_norm_epsilon"):
        if hasattr(config, name):
            rms = config.model_type in ("llama", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text")
            add = writer.add_layer_norm_rms_eps if rms else writer.add_layer_norm_eps
            add(getattr(config, name))
    if rope is not None:
        whole = rope.get("full_attention", rope)
        writer.add_rope_freq_base(whole["rope_theta"])
        writer.add_rope_dimension_count(int(width * whole.get("partial_rotary_factor", 1)))
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if getattr(config, "final_logit_softcapping", None) and config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
