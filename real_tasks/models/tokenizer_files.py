"""Tokenizers of checkpoints: the forms that are read, and whether they are read as they stand."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from real_tasks.vocabulary.errors import UserInputError

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER_JSON,
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
"""Files that a tokenizer can be made of; one of them there has to be."""
PROBES = (
    "Q: Is water wet? A: Yes.",
    "  two  blanks,\ttabs\nand lines\n\n  indented: 3.14159, 1,000,000!",
    "naïve Straße 東京 \U0001f600 don't snake_case(x) <b>&amp;</b>",
)
"""Texts in which tokenizers of different classes differ: blanks, digits, scripts, markup."""

log = logging.getLogger(__name__)


def read(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a folder.

    transformers chooses its class by the architecture too. Where that class would cut texts
    otherwise than ``tokenizer.json`` says, the file is followed.

    Raises:
        UserInputError: something has to be installed, or nothing is read of the files.
        Exception: whatever else transformers raises.
    """
    found = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    _check_libraries(found)
    how: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    # No other form has this file, and some architectures' own classes would read nothing of it.
    reader: Any = BertTokenizer if found == ["vocab.txt"] else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = reader.from_pretrained(folder, **how)
        general = type(tokenizer) is PreTrainedTokenizerFast or not tokenizer.is_fast
        follows = general or TOKENIZER_JSON not in found or _cuts_as(tokenizer, folder)
    except Exception as error:
        if TOKENIZER_JSON not in found or "trust_remote_code" in str(error):
            raise
        follows = False
    if not follows:
        log.warning(
            "%s: its %s is followed, as the class that transformers has for the architecture cuts "
            "texts otherwise or cannot read it",
            *(folder, TOKENIZER_JSON),
        )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, **how)
    if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        raise UserInputError(
            f"transformers reads no word of {', '.join(found)} in {folder} as "
            f"{type(tokenizer).__name__}; name the class that wrote them as tokenizer_class in "
            "tokenizer_config.json, or save the tokenizer as tokenizer.json (save_pretrained)"
        )
    if found and found[0].endswith(".model"):
        _check_cuts(tokenizer, folder / found[0])
    return tokenizer


def _check_libraries(found: list[str]) -> None:
    """Say what to install for a form that another library reads."""
    needed = "mistral_common" if found == ["tekken.json"] else "sentencepiece"
    models = found == ["tekken.json"] or (bool(found) and found[0].endswith(".model"))
    if models and find_spec(needed) is None:
        package = needed.replace("_", "-")
        raise UserInputError(
            f"the tokenizer is there as {found[0]} only, which {package} reads and which is not "
            f"installed: put the tokenizer.json that belongs to it into the folder, or pip install "
            f"{package}"
        )


def _check_cuts(tokenizer: PreTrainedTokenizerBase, model: Path) -> None:
    """Refuse a tokenizer that cuts texts otherwise than the sentencepiece model it is made of.

    The model does not say whether texts begin with BOS, and versions of transformers differ in it.
    """
    import sentencepiece  # an extra: imported where it is used

    if tokenizer.bos_token is not None and "add_bos_token" not in tokenizer.init_kwargs:
        raise UserInputError(
            f"{model} is the only form of the tokenizer, and nothing says whether texts begin with "
            f"{tokenizer.bos_token}: put add_bos_token (true for Llama 2, Mistral and Gemma) into "
            "tokenizer_config.json"
        )
    said = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for text in PROBES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids != (expected := said.encode(text)):
            raise UserInputError(
                f"{model} is the only form of the tokenizer, and transformers reads it otherwise "
                f"than sentencepiece does (as {type(tokenizer).__name__}, {text!r} becomes {ids}, "
                f"by the model {expected}); put the tokenizer.json that belongs to it into the "
                "folder (most checkpoints on the Hub have one)"
            )


def _cuts_as(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Say whether texts are cut as ``tokenizer.json`` says.

    The blank before the first word is put aside where the tokenizer's configuration decides on it.
    """
    said = Tokenizer.from_file(str(folder / TOKENIZER_JSON))
    said.no_truncation()
    said.no_padding()
    config = folder / "tokenizer_config.json"
    decides = config.is_file() and "add_prefix_space" in json.loads(config.read_text("utf-8"))

    def same(text: str) -> bool:
        ids = said.encode(text, add_special_tokens=False).ids
        return bool(tokenizer(text, add_special_tokens=False)["input_ids"] == ids)

    variants = ("", " ") if decides else ("",)
    return any(all(same(first + text.strip()) for text in PROBES) for first in variants)
