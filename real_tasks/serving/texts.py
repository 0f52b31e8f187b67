"""From tokens to text as they come: whole characters, cut at the first stop string."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"
"""What decoders put where bytes are no whole character."""


class GrowingText:
    """The text of tokens that come one after another; half a character waits for its other half."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # Decoders treat a text's beginning in their own way, so that each piece is decoded behind
        # the one before it.
        self._behind = self._told = 0

    def push(self, token: int) -> str:
        """Take a token and return what it adds."""
        self._ids.append(token)
        return self._new(at_end=False)

    def end(self) -> str:
        """Return what still waits, bytes that never became a character included."""
        return self._new(at_end=True)

    def _new(self, at_end: bool) -> str:
        before = self._decode(self._ids[self._behind : self._told])
        text = self._decode(self._ids[self._behind :])
        waits = text.endswith(UNFINISHED) and not at_end
        if waits or len(text) == len(before):  # nothing yet: half a character, a special token
            return ""
        self._behind, self._told = self._told, len(self._ids)
        return text[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        if not ids:
            return ""
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


class UpToStop:
    """A text up to the first of some strings; what may become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Take text; return what may be shown, and whether the text has ended."""
        held = self._held + text
        places = [place for place in (held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self._held = ""
            return held[: min(places)], True
        n_kept = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - n_kept :]
        return held[: len(held) - n_kept], False

    def end(self) -> str:
        """Return what was held back, as nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how long an end of the text is that begins a stop string."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(stop[:n])), 0)


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], bytes]:
    """Return what gives the bytes that a token stands for, which may be a part of a character."""
    alphabet = _byte_alphabet() if _is_byte_level(tokenizer) else None

    @lru_cache(maxsize=100_000)
    def of(token: int) -> bytes:
        word: Any = tokenizer.convert_ids_to_tokens(token)
        if word is None:
            return b""
        if alphabet is not None and all(char in alphabet for char in word):
            return bytes(alphabet[char] for char in word)
        if len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
            return bytes([int(word[3:5], 16)])
        return str(word).replace("\u2581", " ").encode()

    return of


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    return '"ByteLevel"' in json.dumps(json.loads(backend.to_str())["decoder"])


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """Return the byte for which each character of byte-level tokens stands."""
    # Bytes with a character of their own in Latin-1 keep it; the others follow from U+0100 on.
    known = set(ByteLevel.alphabet())
    kept = [byte for byte in range(256) if chr(byte) in known]
    moved = [byte for byte in range(256) if chr(byte) not in known]
    found = {chr(byte): byte for byte in kept}
    return found | {chr(256 + n): byte for n, byte in enumerate(moved)}
