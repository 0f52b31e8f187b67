"""Hugging Face checkpoint folders: what they have to contain, and reading them offline."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from real_tasks.models.config_json import check_given, check_numbers
from real_tasks.models.families import family_of
from real_tasks.models.tokenizer_files import TOKENIZER_FILES
from real_tasks.models.tokenizer_files import read as read_tokenizer_files
from real_tasks.models.weight_checks import check_loaded, check_weights
from real_tasks.models.weights import WEIGHTS, check_form, read_mapping, weight_files
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError

CONFIG = "config.json"
FROM_GGUF = "gguf.json"
"""Stands for the weights where these are in a GGUF file that is converted when they are needed."""
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

MAPPINGS = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.json",
    "tekken.json",
)
"""Files that hold a JSON mapping, where they are there."""
log = logging.getLogger(__name__)

_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError)


def check_checkpoint(folder: Path) -> None:
    """Check that a folder holds a configuration, safetensors weights and a tokenizer.

    Raises:
        UserInputError: the path is no folder, or lists everything that is missing from it.
    """
    if not folder.is_dir():
        raise UserInputError(
            f"the model path {str(folder)!r} is no folder; expected the folder of a Hugging Face "
            "checkpoint (as save_pretrained writes it)"
        )
    missing = missing_from(folder)
    if missing:
        raise UserInputError(
            f"the folder {str(folder)!r} is no complete Hugging Face checkpoint; missing: "
            f"{', '.join(missing)}. Save the model and its tokenizer with save_pretrained"
        )


def missing_from(folder: Path, weights_only: bool = False) -> list[str]:
    """Return what a folder lacks to be a complete checkpoint, or an adapter of one.

    Raises:
        UserInputError: the list of the weights' files is damaged.
    """
    if (folder / ADAPTER).is_file() and not (folder / CONFIG).is_file():
        return [] if (folder / ADAPTER_WEIGHTS).is_file() else [ADAPTER_WEIGHTS]
    weights = _missing_weights(folder)
    if weights_only:
        return weights
    config = [] if (folder / CONFIG).is_file() else [CONFIG]
    tokenizer = [] if has_tokenizer(folder) else ["a tokenizer (tokenizer.json)"]
    return [*config, *weights, *tokenizer]


def has_tokenizer(folder: Path) -> bool:
    """Say whether a folder holds a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _missing_weights(folder: Path) -> list[str]:
    if (folder / FROM_GGUF).is_file():
        return []
    missing = [path.name for path in weight_files(folder) if not path.is_file()]
    return [f"{WEIGHTS} (other formats are not read)"] if missing == [WEIGHTS] else missing


def check_files(folder: Path) -> None:
    """Check that the files of a checkpoint are what their names say: no pointers, no lists.

    Raises:
        UserInputError: one is not.
    """
    for name in MAPPINGS:
        if (folder / name).is_file():
            read_mapping(folder / name)
    texts = (
        "*.model",
        "*.jinja",
        "*/*.jinja",
        "vocab.txt",
        "merges.txt",
        "vocab.bpe",
        "*.tiktoken",
    )
    for pattern in texts:
        for path in sorted(folder.glob(pattern)):
            check_form(path)


def read_config(folder: Path, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Return the configuration in a folder, of an architecture that is known.

    Raises:
        UserInputError: it is not there or cannot be read, brings Python code of its own that the
            user has not said to trust, is of an unknown architecture, describes a network that
            cannot be, or quantised weights.
    """
    file = folder / CONFIG
    if file.is_file():
        check_given(file, read_mapping(file))
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # whatever a configuration of another form comes to
        raise UserInputError(
            f"{file} cannot be read: {error}{_about_remote_code(error)}"
        ) from error
    family_of(config)
    check_numbers(file, config.get_text_config())
    return config


def check_attention(options: ModelConfig) -> None:
    """Check that the implementation of attention is installed.

    Raises:
        UserInputError: it is not.
    """
    if options.attn_implementation == "flash_attention_2" and find_spec("flash_attn") is None:
        # transformers would fetch a kernel from the Hub instead.
        raise UserInputError(
            "model.attn_implementation is flash_attention_2, but flash-attn is not installed: "
            "pip install flash-attn, or choose sdpa"
        )


def read_weights(
    folder: Path, options: ModelConfig, device_map: str | None = None
) -> PreTrainedModel:
    """Return the model: no pickle, no network, and no remote code unless it is trusted by name.

    Without a ``device_map`` it is loaded to the CPU. The folder is a complete checkpoint.

    Raises:
        UserInputError: the weights are damaged or missing, or something has to be installed.
    """
    if device_map is not None and find_spec("accelerate") is None:
        raise UserInputError(
            "execution.device_map needs accelerate: pip install real-steering[large]"
        )
    check_attention(options)
    # The stub does not know that output_loading_info makes a pair of the result.
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = from_pretrained(
            folder,
            dtype=DTYPES[options.dtype],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=options.trust_remote_code,
            attn_implementation=_attention(folder, options),
            device_map=device_map,
            output_loading_info=True,
        )
    except _UNREADABLE as error:
        if "ignore_mismatched_sizes" in str(error):
            check_weights(folder, read_config(folder, options.trust_remote_code))
        raise UserInputError(
            f"the checkpoint {folder} cannot be read: {error}{_about_remote_code(error)}"
        ) from error
    check_loaded(folder, info)
    loaded: PreTrainedModel = model
    return loaded


def check_tied(folder: Path, model: PreTrainedModel) -> None:
    """Check that embeddings which are tied by the configuration are not two in the weights.

    Raises:
        UserInputError: they are.
    """
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if (
        tied
        and isinstance(outer, nn.Module)
        and not outer.weight.is_meta
        and inner.weight is not outer.weight
    ):
        raise UserInputError(
            f"{folder / CONFIG} says tie_word_embeddings, but the weights hold an lm_head that is "
            "not the embeddings; set it to false if that lm_head is meant, or remove it"
        )


def read_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a folder.

    Raises:
        UserInputError: it cannot be read.
    """
    try:
        return read_tokenizer_files(folder, trust_remote_code)
    except UserInputError:
        raise
    except Exception as error:  # whatever a tokenizer of another form comes to
        raise UserInputError(
            f"the tokenizer in {folder} cannot be read: {error}{_about_remote_code(error)}"
        ) from error


def _attention(folder: Path, options: ModelConfig) -> str:
    """Return how attention is computed: where sdpa would not do what the model asks for, eager."""
    config = read_config(folder, options.trust_remote_code)
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    if options.attn_implementation != "sdpa" or (family_of(config).sdpa and not capped):
        return options.attn_implementation
    log.info(
        "%s: attention 'eager' instead of 'sdpa', which does not cap attention scores as the "
        "architecture %r asks for",
        *(folder, config.model_type),
    )
    return "eager"


def _about_remote_code(error: Exception) -> str:
    if "trust_remote_code" not in str(error):
        return ""
    return (
        ". The checkpoint brings Python code of its own: read it, and if you trust it, set "
        "model.trust_remote_code to true"
    )
