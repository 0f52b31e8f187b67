"""Hugging Face checkpoint folders: what they have to contain, and reading them offline."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from real_tasks.errors import UserInputError

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_checkpoint(folder: Path) -> None:
    """Check that a folder holds a configuration, safetensors weights and a tokenizer.

    Raises:
        UserInputError: the path is no folder, or lists everything that is missing from it.
    """
    if not folder.is_dir():
        raise UserInputError(
            f"the model path {str(folder)!r} is no folder; expected the folder of a Hugging Face "
            "checkpoint (as save_pretrained writes it) or the name of an embedded model"
        )
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += _missing_weights(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        missing.append("a tokenizer (tokenizer.json)")
    if missing:
        raise UserInputError(
            f"the folder {str(folder)!r} is no complete Hugging Face checkpoint; missing: "
            f"{', '.join(missing)}. Save the model and its tokenizer with save_pretrained"
        )


def _missing_weights(folder: Path) -> list[str]:
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        return [] if (folder / WEIGHTS).is_file() else [f"{WEIGHTS} (other formats are not read)"]
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, AttributeError) as error:
        raise UserInputError(
            f"{index} is damaged ({error}); fetch or save the model again"
        ) from error
    return [shard for shard in shards if not (folder / shard).is_file()]


def read_config(folder: Path) -> PreTrainedConfig:
    """Return the configuration of a complete checkpoint.

    Raises:
        UserInputError: the folder is no checkpoint, or its configuration cannot be read.
    """
    check_checkpoint(folder)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserInputError(f"{folder / 'config.json'} cannot be read: {error}") from error
    return config


def read_weights(
    folder: Path, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, its weights in ``dtype``, and the tokenizer: no pickle, no remote code.

    Raises:
        UserInputError: the weights or the tokenizer are damaged, or weights are missing.
    """
    # The stub does not know that output_loading_info makes a pair of the result.
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, info = from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UserInputError(f"the checkpoint {folder} cannot be read: {error}") from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:5])
        raise UserInputError(f"the checkpoint {folder} lacks {missing}; fetch or save it again")
    return model, tokenizer
