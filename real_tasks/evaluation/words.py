"""Texts made even, and cut into words, in any script, so that answers can be compared."""

import unicodedata

import regex

_UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}ー]"
)
"""Letters of scripts that put no blanks between words."""

_INVISIBLE = regex.compile(r"\p{Cf}+")
_BLANK_BESIDE = regex.compile(rf"(?<={_UNSPACED}\p{{M}}*)\s+|\s+(?={_UNSPACED})")
_ENDING = regex.compile(r"[\p{Terminal_Punctuation}\s]+\Z")
_THOUSANDS = regex.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = regex.compile(
    rf"\d+(?:\.\d+)+|{_UNSPACED}\p{{M}}*|(?:(?!{_UNSPACED})[\w\p{{M}}])+", regex.VERSION1
)
_NOT_LATIN = regex.compile(r"[^\p{Latin}\p{Common}\p{Inherited}]")


def normalised(text: str) -> str:
    """Return the text made even (see `words`), without the punctuation that ends it.

    Blanks are single ones; those beside letters of scripts without blanks are dropped, which some
    tokenizers put there. What ends it is Unicode's terminal punctuation: ``.,;:!?`` in English.
    """
    single = " ".join(_even(text).split())
    return str(_ENDING.sub("", _BLANK_BESIDE.sub("", single)))


def words(text: str) -> list[str]:
    """Cut a text into words: runs of letters, their marks, digits and underscores, in one case.

    In scripts that put no blanks between words, every letter is a word. All else separates words
    and is dropped, but for points between digits: ``3.14`` is one word. Commas that group digits by
    thousands are left out: ``1,000`` is ``1000``. Characters that look alike (full-width letters,
    ligatures, composed or not) are made the same (Unicode NFKC), digits of all scripts as well, and
    invisible ones are dropped.
    """
    return [match[0] for match in _WORD.finditer(_THOUSANDS.sub("", _even(text)))]


def is_latin(text: str) -> bool:
    """Return whether all letters of a text are Latin ones; so they are where there is none."""
    return _NOT_LATIN.search(text) is None


def _even(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    shown = _INVISIBLE.sub("", unicodedata.normalize("NFKC", plain))
    shown = shown.replace("i\u0307", "i")  # what the dotted capital I of Turkish is folded to
    return "".join(str(unicodedata.decimal(one)) if one.isdecimal() else one for one in shown)
