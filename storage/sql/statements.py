"""Texts that people type, cut into SQL statements."""

import re

from storage.errors import QueryError
from storage.sql.catalog import LONGEST_STATEMENT

# What begins a literal or a comment, ends a statement, or is to be taken whole: the E of a name is
# none before a literal, and its $ begins none.
_TOKEN = re.compile(r"""--[^\r\n]*|/\*|[eE]'|['"]|\$(?:[^\W\d]\w*)?\$|;|\s+|[\w$]+|.""", re.DOTALL)
_ENDS = {"'": re.compile("'"), '"': re.compile('"'), "/*": re.compile(r"/\*|\*/")}
_ESCAPED_END = re.compile(r"(?:[^'\\]|\\.)*?'", re.DOTALL)


class Splitter:
    """Cuts text that comes piece by piece into statements; each character is looked at once."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._pieces: list[str] = []
        self._size = 0
        self._in_words = False  # something besides blanks and comments
        self._closing: re.Pattern[str] | None = None  # of the open literal or comment
        self._depth = 0  # of comments within comments

    @property
    def waiting(self) -> bool:
        """Whether a statement, a literal or a comment has begun and not ended."""
        return self._in_words or self._closing is not None

    def feed(self, text: str) -> list[str]:
        """Take some whole lines; return the statements that end in them.

        Raises:
            QueryError: a statement is too long.
        """
        found, start, place = [], 0, 0
        while place < len(text):
            if self._closing is not None:
                place = self._close(text, place)
                continue
            token = _TOKEN.match(text, place)
            assert token is not None, "any character is a token"
            place = token.end()
            if token.group() == ";":
                if self._in_words:
                    found.append("".join([*self._pieces, text[start:place]]).strip())
                self._pieces, self._size, self._in_words, start = [], 0, False, place
            else:
                self._open(token.group())
        self._pieces.append(text[start:])
        self._size += len(text) - start
        if self._size > LONGEST_STATEMENT:
            raise QueryError(f"a statement is longer than {LONGEST_STATEMENT} characters")
        return found

    def rest(self) -> list[str]:
        """Return the last statement, where no semicolon ends it."""
        return ["".join(self._pieces).strip()] if self.waiting else []

    def _open(self, token: str) -> None:
        if token in ("e'", "E'"):
            self._closing = _ESCAPED_END
        elif token in _ENDS:
            self._closing = _ENDS[token]
            self._depth = int(token == "/*")
        elif token[0] == token[-1] == "$" and len(token) > 1:
            self._closing = re.compile(re.escape(token))
        if token != "/*" and not token.startswith("--") and not token.isspace():
            self._in_words = True

    def _close(self, text: str, place: int) -> int:
        """Go to the end of what is open, or of the text."""
        assert self._closing is not None, "something is open"
        end = (
            self._closing.match(text, place)
            if self._closing is _ESCAPED_END
            else self._closing.search(text, place)
        )
        if end is None:
            return len(text)
        self._depth += {"/*": 1, "*/": -1}.get(end.group(), 0)
        if self._depth <= 0:
            self._closing = None
        return end.end()
