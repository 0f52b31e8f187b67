"""What the numbers in a checkpoint's config.json have to be, looked at before they are used."""

import math
from pathlib import Path
from typing import Any, NoReturn

from transformers import PreTrainedConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from real_tasks.models.weights import WEIGHTS, WEIGHTS_INDEX
from real_tasks.vocabulary.errors import UserInputError

MOST_LAYERS = 10_000
_COUNTS = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_size",
    "vocab_size",
    "max_position_embeddings",
)
_ROPE_NUMBERS = (
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "short_factor",
    "long_factor",
)


def check_given(file: Path, given: dict[str, Any]) -> None:
    """Check a configuration as JSON gives it, before transformers makes lists as long as it says.

    Raises:
        UserInputError: more layers than any model has, quantised weights, or a file of weights
            under another name.
    """
    nested = [inner for inner in given.values() if isinstance(inner, dict)]
    for part in (given, *nested):
        for name in ("num_hidden_layers", "n_layer"):
            if isinstance(part.get(name), int | float) and part[name] > MOST_LAYERS:
                raise UserInputError(
                    f"{file} asks for {name}={part[name]}, more than {MOST_LAYERS}; correct it, or "
                    "fetch the checkpoint again"
                )
        if part.get("quantization_config") is not None:
            _refuse_quantised(file, part["quantization_config"])
    if given.get("transformers_weights") is not None:
        raise UserInputError(
            f"{file} names a file of weights of its own (transformers_weights="
            f"{given['transformers_weights']!r}), but only {WEIGHTS} and what {WEIGHTS_INDEX} "
            "lists are read; save the model with save_pretrained"
        )


def _refuse_quantised(file: Path, given: Any) -> NoReturn:
    method = given.get("quant_method") if isinstance(given, dict) else None
    known = method in AUTO_QUANTIZATION_CONFIG_MAPPING or method == "bitsandbytes"
    what = f"are quantised by {method}" if known else "are quantised in a way that is unknown here"
    raise UserInputError(
        f"{file}: the weights {what} (quantization_config: {str(given)[:60]}); steering is "
        "checked for floating-point weights only: give the checkpoint before it was quantised, or "
        "one made by transformers' model.dequantize() and save_pretrained"
    )


def check_numbers(file: Path, config: PreTrainedConfig) -> None:
    """Check the numbers that a network's shape and its positions follow from.

    Raises:
        UserInputError: one is not positive, or heads do not divide what they share.
    """
    wrong = [
        f"{name}={getattr(config, name)!r}"
        for name in _COUNTS
        if getattr(config, name, None) is not None
        and (not isinstance(getattr(config, name), int) or getattr(config, name) < 1)
    ]
    heads, width = config.num_attention_heads, config.hidden_size
    kv = getattr(config, "num_key_value_heads", None) or heads
    if not wrong and getattr(config, "head_dim", None) is None and width % heads:
        wrong = [f"hidden_size={width} with num_attention_heads={heads}, which do not divide it"]
    if not wrong and heads % kv:
        wrong = [f"num_attention_heads={heads}, no multiple of num_key_value_heads={kv}"]
    wrong = wrong or _wrong_rope(getattr(config, "rope_parameters", None) or {})
    if wrong:
        raise UserInputError(
            f"{file} has {', '.join(wrong)}; correct it, or fetch the checkpoint again"
        )


def _wrong_rope(given: dict[str, Any], within: str = "rope_parameters") -> list[str]:
    found = []
    for name, value in given.items():
        if isinstance(value, dict):
            found += _wrong_rope(value, f"{within}.{name}")
        elif name in _ROPE_NUMBERS and value is not None and not _positive(value):
            found.append(f"{within}.{name}={value!r}, expected a number above 0")
    return found


def _positive(value: Any) -> bool:
    values = value if isinstance(value, list) and value else [value]
    return all(isinstance(one, int | float) and 0 < one < math.inf for one in values)
