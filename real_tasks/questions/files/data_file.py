"""Data files and Hub data sets as rows with line numbers; nothing of behaviours.

What is wrong with a single line is a `Problem`, so that all of them can be told at once and the
good lines can be used; only a file of which nothing can be read raises.
"""

import codecs
import errno
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_tasks.questions.files.formats import (
    BOM,
    Problem,
    Row,
    array_rows,
    csv_rows,
    is_array,
    is_spread,
    json_lines,
    parquet_rows,
)
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import check_no_pointer, expanded

EXTENSIONS = (".jsonl", ".json", ".csv", ".parquet")
_MARKS = {  # Those of UTF-32 begin with those of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_AT_THE_END = f" \t\r\n\v\f\x1a\x85\xa0\u200b\u2028\u2029{BOM}"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class DataFile:
    """The rows of a file or of a Hub data set, in whose ``name`` records say where data come from.

    ``format`` is ``jsonl``, ``json``, ``csv``, ``parquet`` or ``hub``; columns are in the order of
    their first appearance; problems are of the lines that could not be read.
    """

    name: str
    format: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    sha256: str


def read_data_file(path: str | Path) -> DataFile:
    """Read a file; its extension says how (.jsonl, .json, .csv, .parquet).

    A .json or .jsonl file may hold an array of objects, one object a line, or objects over several
    lines. Text is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one. A CSV
    file has a header and is separated by commas.

    Raises:
        UserInputError: there is no such file, or nothing of it can be read.
    """
    path = expanded(path)
    content = _content(path)
    format, found = _read(path, content)
    if not found:
        raise UserInputError(
            f"the data file {str(path)!r} holds no rows, only what stands around them (a header, "
            "or an empty array); expected a question a row"
        )
    checked = [_with_clean_text(item) if isinstance(item, Row) else item for item in found]
    rows = tuple(item for item in checked if isinstance(item, Row))
    problems = tuple(item for item in checked if isinstance(item, Problem))
    sha256 = hashlib.sha256(content).hexdigest()
    return DataFile(path.name, format, _columns(rows), rows, problems, sha256)


def data_file_of(name: str, records: Iterable[Mapping[str, Any]]) -> DataFile:
    """Return records that were read otherwise, of a Hub data set, as the rows of a file."""
    rows = tuple(Row(number, number, record) for number, record in enumerate(records, start=1))
    content = json.dumps([row.fields for row in rows], sort_keys=True, default=str)
    sha256 = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
    return DataFile(name, "hub", _columns(rows), rows, (), sha256)


def decoded(path: Path, content: bytes) -> str:
    """Return UTF-8 text; a byte that is none becomes a lone surrogate, for `wrong_character`.

    UTF-16 and UTF-32 are read as well where they begin with a byte order mark. What some programs
    put at the end of a text (blanks, marks, the sign for its end) is left out.

    Raises:
        UserInputError: it is no text at all.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            try:
                text = content.decode(encoding, errors="surrogatepass")
                return text.lstrip(BOM).rstrip(_AT_THE_END)
            except UnicodeDecodeError as error:
                raise UserInputError(
                    f"{str(path)!r} begins as {encoding} and is damaged or cut off ({error.reason} "
                    f"at byte {error.start}); save it as UTF-8"
                ) from error
    if b"\0" in content:
        raise UserInputError(
            f"{str(path)!r} holds zero bytes: it is not UTF-8 text (UTF-16 without a byte order "
            "mark, or a binary file?); save it as UTF-8"
        )
    text = content.decode("utf-8", errors="surrogateescape")
    return text.lstrip(BOM).rstrip(_AT_THE_END)


def wrong_character(text: str) -> str | None:
    """Return what of a `decoded` text is not UTF-8, None if all of it is."""
    found = _SURROGATE.search(text)
    if found is None:
        return None
    code = ord(found[0])
    return f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "a lone surrogate"


def _read(path: Path, content: bytes) -> tuple[str, list[Row | Problem]]:
    extension = path.suffix.lower()
    if extension == ".parquet":
        return "parquet", list(parquet_rows(path))
    text = decoded(path, content)
    if extension == ".csv":
        _check_separator(path, text)
        return "csv", list(csv_rows(path.name, text))
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # JSON has no \r within its strings
    whole = is_array(text) or is_spread(text)
    found = list(array_rows(text) if whole else json_lines(text))
    _check_no_wrapping(path, found)
    return "json" if whole else "jsonl", found


def _check_separator(path: Path, text: str) -> None:
    header = text.partition("\n")[0]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if separator in header and "," not in header:
            raise UserInputError(
                f"{path.name!r} seems to be separated by {name}: its header is "
                f"{header.strip()!r}; expected commas between columns; save it with commas, or as "
                "JSON lines"
            )


def _check_no_wrapping(path: Path, found: list[Row | Problem]) -> None:
    """Tell of an object around all rows."""
    if len(found) > 1 or not found or not isinstance(found[0], Row):
        return
    for name, value in found[0].fields.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            raise UserInputError(
                f"{path.name!r} is a single JSON object, whose rows seem to be in its field "
                f"{name!r}; expected that array alone, or one object a line, each with a question"
            )


def regular(path: Path) -> Path:
    """Return the path of a file; a device or a pipe, which may never end, is an OSError.

    Raises:
        UserInputError: it is a git-lfs pointer.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    check_no_pointer(path)
    return path


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise UserInputError(f"{str(path)!r} is a folder; expected a data file; name one in it")
    if path.suffix.lower() not in EXTENSIONS:
        raise UserInputError(
            f"{str(path)!r} ends with {path.suffix!r}; expected a data file that ends with "
            f"{', '.join(EXTENSIONS)}; rename it after what it holds, or convert it"
        )
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise UserInputError(
            f"the data file {str(path)!r} cannot be read ({error.strerror}); correct the path"
        ) from error
    if not content.strip():
        raise UserInputError(f"the data file {str(path)!r} is empty; expected a question a row")
    return content


def _columns(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.fields))


def _with_clean_text(row: Row) -> Row | Problem:
    for name, value in row.fields.items():
        for text in (name, *_texts(value)):
            if wrong := wrong_character(text):
                column = name.encode("utf-8", "replace").decode()
                return Problem(
                    row.line, f"not UTF-8 ({wrong} in {column!r}); save the file as UTF-8"
                )
    return row


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
