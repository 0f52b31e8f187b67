"""What is known of a checkpoint, and refused, before any of its weights is read."""

from pathlib import Path
from typing import cast

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from real_tasks.models.adapters import base_of, check_adapter, tokenizer_of
from real_tasks.models.chat import ChatFormat, chat_format, check_chat
from real_tasks.models.checkpoints import (
    FROM_GGUF,
    check_checkpoint,
    check_files,
    missing_from,
    read_config,
    read_tokenizer,
)
from real_tasks.models.families import configured_shape
from real_tasks.models.hub import local_checkpoint
from real_tasks.models.text_model import TextModel, longest_text
from real_tasks.models.weight_checks import check_weights
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import expanded
from real_tasks.vocabulary.types import ModelShape


def check_model(options: ModelConfig) -> tuple[ModelShape, TextModel | None]:
    """Check all that is known of a checkpoint before its weights are read.

    Of a Hugging Face id whose weights are not in the cache yet, only the configuration is fetched
    and looked at.

    Returns:
        Its shape, and how it reads texts, where its tokenizer is there.

    Raises:
        UserInputError: what `load_model` would raise, weights that are not finite excepted.
    """
    folder, base, config = _located(options.path, options.revision, options.trust_remote_code)
    shape = configured_shape(config)
    if missing_from(folder) or missing_from(base):
        return shape, None
    for part in dict.fromkeys((folder, base)):
        check_files(part)
    check_shape(shape, options)
    if not (base / FROM_GGUF).is_file():
        check_weights(base, config)
    check_adapter(folder, config)
    tokenizer = read_tokenizer(tokenizer_of(folder), options.trust_remote_code)
    n_tokens = config.get_text_config().vocab_size
    check_tokens(tokenizer, n_tokens)
    chat = chat_of(tokenizer, options)
    return shape, TextModel(tokenizer, chat, n_tokens, longest_text(config))


def check_tokens(tokenizer: PreTrainedTokenizerBase, n_embeddings: int) -> None:
    """Refuse a tokenizer whose vocabulary, or what it puts before texts, has no embedding.

    What only pads is never looked up. Tokens that were added beside a vocabulary (for pictures, in
    Gemma 3) often have no embedding; texts that hold one are refused when they are encoded.
    """
    known = tokenizer.get_vocab()
    extra = tokenizer.get_added_vocab().keys() - tokenizer.convert_ids_to_tokens(
        cast(list[int], tokenizer("a")["input_ids"])
    )
    beyond = {
        token: number
        for token, number in known.items()
        if number >= n_embeddings and number != tokenizer.pad_token_id and token not in extra
    }
    if beyond:
        token, number = min(beyond.items(), key=lambda pair: pair[1])
        raise UserInputError(
            f"the tokenizer has {len(beyond)} tokens beyond the model's {n_embeddings} embeddings "
            f"(first: {token!r} with the id {number}); give the checkpoint the tokenizer that it "
            "was trained with, or the embeddings that belong to it (resize_token_embeddings and "
            "training)"
        )


def checkpoint_config(
    path: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Return a checkpoint's configuration; no weights are read or fetched.

    The path is a folder of a whole checkpoint, or a Hugging Face id with its revision.

    Raises:
        UserInputError: no such checkpoint, an incomplete folder, or an unknown architecture.
    """
    return _located(path, revision, trust_remote_code)[-1]


def _located(
    path: str | Path, revision: str | None, trust_remote_code: bool
) -> tuple[Path, Path, PreTrainedConfig]:
    """Return a checkpoint's folder, that of the model which it adapts, and that one's settings."""
    folder = local_checkpoint(str(path), revision, config_only=True)
    if expanded(path).is_dir():
        check_checkpoint(folder)
    base = base_of(folder, config_only=True)
    return folder, base, read_config(base, trust_remote_code)


def check_shape(shape: ModelShape, options: ModelConfig) -> None:
    """Refuse a checkpoint of another shape than the configuration says."""
    known = options.shape and ModelShape(**options.shape.model_dump(exclude={"parameters"}))
    if known is not None and known != shape:
        raise UserInputError(
            f"model.shape says {options.shape}, but the checkpoint has n_layers={shape.n_layers} "
            f"n_heads={shape.n_heads} head_dim={shape.head_dim} d_model={shape.d_model}; correct "
            "model.shape or remove it, or choose the checkpoint that was meant"
        )


def chat_of(tokenizer: PreTrainedTokenizerBase, options: ModelConfig) -> ChatFormat | None:
    """Return how prompts go through the tokenizer's chat template; None: they are plain text."""
    if not options.chat_template:
        return None
    if not tokenizer.chat_template:
        raise UserInputError(
            "model.chat_template is true, but the tokenizer has no chat template (a base model?); "
            "set it to false, or put chat_template.jinja into the checkpoint's folder"
        )
    chat = chat_format(options)
    check_chat(tokenizer, chat)
    return chat
