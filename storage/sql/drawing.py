"""Tables for people: columns beside one another, or a block a row where they do not fit."""

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len, chop_cells

_FOLDED_WIDTH = 20
# What would move the cursor, change colours, or turn the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

Cells = Sequence[Sequence[str]]


def escaped(text: str) -> str:
    """Return the text with control characters, but newlines and tabs, as their codes."""
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


class Drawing:
    """The layout of a table, made from its first rows."""

    def __init__(
        self, names: Sequence[str], right: Sequence[bool], first: Cells, width: int
    ) -> None:
        """Lay out columns by their first cells, ``right`` ones to the right, for a screen."""
        self._names = [escaped(name) for name in names]
        self._right = right
        self._width = width
        columns = zip(self._names, *first, strict=True)
        natural = [max(max(map(cell_len, text.split("\n"))) for text in one) for one in columns]
        least = sum(min(length, _FOLDED_WIDTH) + 3 for length in natural) + 1
        self._fits = least <= width
        self._widths = _shared(natural, width - 3 * len(natural) - 1) if self._fits else []

    def text(self, chunks: Iterable[Cells]) -> Iterator[str]:
        """Yield the table of all rows."""
        if not self._fits:
            for rows in chunks:
                yield "".join(map(self._block, rows))
            return
        bars = ["━" * (width + 2) for width in self._widths]
        yield f"┏{'┳'.join(bars)}┓\n"
        yield "".join(self._lines([self._names], "┃", [False] * len(bars)))
        yield f"┡{'╇'.join(bars)}┩\n"
        for rows in chunks:
            yield "".join(self._lines(rows, "│", self._right))
        yield f"└{'┴'.join(bars)}┘\n".replace("━", "─")

    def _lines(self, rows: Cells, bar: str, right: Sequence[bool]) -> Iterator[str]:
        columns = list(zip(*rows, strict=True))
        layout = list(zip(self._widths, right, strict=True))
        folded = [
            [_folded(text, width) for text in column]
            for column, (width, _) in zip(columns, layout, strict=True)
        ]
        blank = [" " * width for width in self._widths]
        for cells in zip(*folded, strict=True):
            height = max(map(len, cells))
            for line in range(height):
                texts = [
                    _padded(cell[line], *side) if line < len(cell) else empty
                    for cell, side, empty in zip(cells, layout, blank, strict=True)
                ]
                yield f"{bar} {f' {bar} '.join(texts)} {bar}\n"

    def _block(self, row: Sequence[str]) -> str:
        longest = min(max(map(cell_len, self._names)), max(self._width // 2, 1))
        rest = max(self._width - longest - 2, 1)
        lines = []
        for name, text in zip(self._names, row, strict=True):
            names, texts = _folded(name, longest), _folded(text, rest)
            for place in range(max(len(names), len(texts))):
                left = names[place] if place < len(names) else ""
                value = texts[place] if place < len(texts) else ""
                lines.append(f"{_padded(left, longest, False)}  {value}".rstrip())
        return "\n".join(lines) + "\n\n"


def _shared(natural: list[int], room: int) -> list[int]:
    """Return widths that fill at most ``room``: the narrow get what they need, the wide as much."""
    widths = [0] * len(natural)
    for left, place in enumerate(sorted(range(len(natural)), key=natural.__getitem__)):
        widths[place] = max(min(natural[place], room // (len(natural) - left)), 1)
        room -= widths[place]
    return widths


def _folded(text: str, width: int) -> list[str]:
    if text.isascii() and len(text) <= width and "\n" not in text and "\t" not in text:
        return [text]
    lines = text.expandtabs(8).split("\n")
    return [part for line in lines for part in _at_words(line, width)]


def _at_words(line: str, width: int) -> Iterator[str]:
    """Yield pieces of at most ``width`` cells, cut at a blank, or within a word that is longer."""
    place = 0
    while len(ahead := line[place : place + width + 1]) > width or cell_len(ahead) > width:
        piece = chop_cells(ahead, width)[0]
        end = max(len(piece), 1)
        if ahead[end : end + 1] != " " and piece.rpartition(" ")[0].strip():
            end = piece.rindex(" ")
        yield ahead[:end]
        place += end + (ahead[end : end + 1] == " ")
    if ahead or not place:
        yield ahead


def _padded(text: str, width: int, right: bool) -> str:
    if text.isascii():
        return text.rjust(width) if right else text.ljust(width)
    blanks = " " * (width - cell_len(text))
    return blanks + text if right else text + blanks
