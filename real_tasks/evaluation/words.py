"""Texts made even, and cut into words, in any script, so that answers can be compared."""

import unicodedata

import regex

_UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"\p{Tibetan}\p{Javanese}\p{Balinese}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}ー]"
)
"""Letters of scripts that put no blanks between words."""

_INVISIBLE = regex.compile(r"[\p{Cf}\p{Variation_Selector}ـ]+")
"""The last is a line that only stretches Arabic words."""
_BLANK_BESIDE = regex.compile(rf"(?<={_UNSPACED}\p{{M}}*)\s+|\s+(?={_UNSPACED})")
_SIGNS = tuple(
    (regex.compile(one), plain)
    for one, plain in ((r"(?!〜)\p{Pd}", "-"), ("[‘’ʼ]", "'"), ("[“”]", '"'))
)
_AROUND = regex.compile(r"\A[¿¡\s]+|[\p{Terminal_Punctuation}~〜・\s]+\Z")
_THOUSANDS = regex.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = regex.compile(
    rf"\d+(?:\.\d+)+|{_UNSPACED}\p{{M}}*|(?:(?!{_UNSPACED}|(?<=\d)\p{{Hangul}})[\w\p{{M}}])+"
    rf"|\p{{Hangul}}(?:(?!{_UNSPACED})[\w\p{{M}}])*",
    regex.VERSION1,
)
_SYLLABLE = regex.compile("[가-힣]")
_FIRST_SYLLABLE, _FINALS, _RIEUL = ord("가"), 28, 8
"""Unicode orders syllables by their last consonant, of which 0 is none and 8 is ㄹ."""
_COPULA = (
    "입니다|입니까|이다|이에요|예요|이었습니다|이었다|이라고|이라는|이지만|이고|이며|이죠|인데요?"
)
_PLACE = "(?:에서|에게|에|한테|까지|부터|보다|처럼|하고|만)"
_EITHER = f"{_PLACE}(?:도|만|의|는)?|도|만|의|께서?|마다|조차|마저|밖에|만큼|대로|같이"
_SHORT = "은|이|을|으로"
_AFTER_CONSONANT = "은|이|을|과(?:는|의)?|으로(?:는|도|서|써|부터)?|이나|이랑|이란|이라도"
_AFTER_VOWEL = (
    "는|가|를|와(?:는|의)?|로(?:는|도|서|써|부터)?|나|랑|란|라도|다|라고|라는|지만|였다|에요|죠"
)
_NOT_LATIN = regex.compile(r"[^\p{Latin}\p{Common}\p{Inherited}]")


def normalised(text: str) -> str:
    """Return the text made even (see `words`), without the punctuation that ends it.

    Blanks are single ones; those beside letters of scripts without blanks are dropped, which some
    tokenizers put there. What ends it is Unicode's terminal punctuation: ``.,;:!?`` in English.
    """
    single = " ".join(_even(text).split())
    return str(_AROUND.sub("", _BLANK_BESIDE.sub("", single)))


def words(text: str) -> list[str]:
    """Cut a text into words: runs of letters, their marks, digits and underscores, in one case.

    In scripts that put no blanks between words, every letter is a word. All else separates words
    and is dropped, but for points between digits: ``3.14`` is one word. Commas that group digits by
    thousands are left out: ``1,000`` is ``1000``. Korean letters after a digit begin a word.
    Characters that look alike (full-width letters, ligatures, composed or not) are made the same
    (Unicode NFKC), digits of all scripts, quotation marks and hyphens as well, and invisible ones
    are dropped.
    """
    return [match[0] for match in _WORD.finditer(_THOUSANDS.sub("", _even(text)))]


def holds_word(said: str, word: str, alone: bool) -> bool:
    """Say whether a word of a text is a given one, or that with what its script writes to it.

    In Korean this is a particle or the copula, in the form that its last sound asks for; a word
    that stands alone and has one syllable takes only those that make no other word of it.
    """
    if not said.startswith(word):
        return False
    added = said[len(word) :]
    if not added:
        return True
    final = (ord(word[-1]) - _FIRST_SYLLABLE) % _FINALS if _SYLLABLE.fullmatch(word[-1]) else None
    if alone and len(word) == 1 and final is not None:
        forms = [_COPULA, *([_SHORT] if final else [])]
    else:
        forms = [_COPULA, _EITHER]
        forms += [] if final == 0 else [_AFTER_CONSONANT]
        forms += [_AFTER_VOWEL] if final in (None, 0) else ["로"] if final == _RIEUL else []
    return regex.fullmatch("|".join(forms), added) is not None


def is_latin(text: str) -> bool:
    """Return whether all letters of a text are Latin ones; so they are where there is none."""
    return _NOT_LATIN.search(text) is None


def _even(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    shown = _INVISIBLE.sub("", unicodedata.normalize("NFKC", plain))
    shown = shown.replace("i\u0307", "i")  # what the dotted capital I of Turkish is folded to
    for sign, plain in _SIGNS:
        shown = sign.sub(plain, shown)
    return "".join(str(unicodedata.decimal(one)) if one.isdecimal() else one for one in shown)
