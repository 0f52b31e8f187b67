"""The tokenizer that a GGUF file describes, mended where transformers reads it otherwise."""

from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from real_tasks.models.gguf.files import GgufHeader
from real_tasks.vocabulary.errors import UserInputError

_BYTES, _PIECES = "gpt2", "llama"
"""Kinds of vocabularies: byte-level BPE, and sentencepiece's."""
_AS_GPT_2 = (None, "default", "gpt-2", "mpt", "olmo", "phi-2")
_DIGITS_APART = ("codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder")
"""Byte-level vocabularies that cut texts before merging as GPT-2 does, digit by digit or not."""
_BEGIN_WITH_BOS = ("falcon3", "llama-bpe", "llama-v3", "llama3", "pixtral", "tekken")
"""Byte-level vocabularies whose texts begin with BOS where the file does not say."""


def read_tokenizer(file: Path, header: GgufHeader) -> PreTrainedTokenizerFast:
    """Return the tokenizer in a GGUF file.

    Raises:
        UserInputError: there is none, or of a kind that cannot be read; what it reads is not what
            the file says.
    """
    kind, pre = (header.facts.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if kind not in (_BYTES, _PIECES):
        raise UserInputError(
            f"{file} holds a tokenizer of the kind {kind!r}, expected {_BYTES!r} or {_PIECES!r}; "
            "give the checkpoint that the file was made of"
        )
    known = (*_AS_GPT_2, *_DIGITS_APART, *GGUF_PRE_TOKENIZER_SPLITS)
    if kind == _BYTES and pre not in known:
        raise UserInputError(
            f"{file} cuts texts as {pre!r} (tokenizer.ggml.pre), which is not known here; give the "
            "checkpoint that the file was made of"
        )
    try:
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(
            file.parent, gguf_file=file.name, local_files_only=True
        )
    except Exception as error:  # whatever a damaged vocabulary comes to
        raise UserInputError(
            f"the tokenizer in {file} cannot be read ({type(error).__name__}: {error}); give the "
            "checkpoint that the file was made of"
        ) from error
    if kind == _BYTES and pre in _DIGITS_APART:
        apart = pre_tokenizers.Digits(individual_digits=True)
        merged = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([apart, merged])
    begins = kind == _PIECES or pre in _BEGIN_WITH_BOS
    tokenizer.add_bos_token = bool(header.facts.get("tokenizer.ggml.add_bos_token", begins))
    tokenizer.add_eos_token = bool(header.facts.get("tokenizer.ggml.add_eos_token", False))
    tokenizer.chat_template = header.facts.get("tokenizer.chat_template")
    found: PreTrainedTokenizerFast = tokenizer
    return found


def check_tokenizer(file: Path, header: GgufHeader, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer puts before and after texts what a GGUF file says.

    Raises:
        UserInputError: it does not.
    """
    facts = header.facts
    ids = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    start = 0 if ids[: len(plain)] == plain else 1
    ends = {"bos": ids[:start], "eos": ids[start + len(plain) :]}
    for name, found in ends.items():
        said = facts.get(f"tokenizer.ggml.add_{name}_token")
        expected = [facts.get(f"tokenizer.ggml.{name}_token_id")] if said else []
        if said is not None and found != expected:
            _refuse(file, f"add_{name}_token is {said}, but a text is given {found}")
    blank = facts.get("tokenizer.ggml.add_space_prefix")
    first = tokenizer.convert_ids_to_tokens(plain)[0]
    pieces = facts["tokenizer.ggml.model"] == _PIECES
    if pieces and blank is not None and bool(blank) != first.startswith("\u2581"):
        _refuse(file, f"add_space_prefix is {blank}, but a text begins with {first!r}")


def _refuse(file: Path, what: str) -> None:
    raise UserInputError(
        f"{file}: {what} by the tokenizer that transformers makes of it; give the checkpoint that "
        "the file was made of"
    )
