"""Neutral texts, on which the side effects of steering are measured."""

from importlib import resources
from pathlib import Path

from real_tasks.questions.files.data_file import decoded, read_data_file, regular, wrong_character
from real_tasks.questions.files.hub import hub_records
from real_tasks.questions.files.parsing import BadRow, collapsed, shortened, text_of, unique
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import expanded

HUB_PREFIX = "hub:"
_ENDS = tuple(".!?:;…\"'”’»)]。！？」।؟۔")
_MOST = 0.9
_CROWDED = 4
"""Lines of a paragraph from which on it may be several texts."""
_TABLES = (".jsonl", ".json", ".csv", ".parquet")


def paragraphs(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, which blank lines separate; each on one line, none twice."""
    lines = [line.strip() for line in text.splitlines()]
    found = "\n".join(lines).split("\n\n")
    return tuple(unique(" ".join(part.split()) for part in found if part.strip()))


def neutral_texts(text: str) -> tuple[str, ...]:
    """Return the texts of a file: its paragraphs, or its lines; each on one line, none twice.

    Its lines where no blank line stands between any, and where the paragraphs have many lines that
    nearly all end as sentences do: lines of a paragraph that was broken seldom do.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    in_paragraphs = paragraphs(text)
    crowded = len(lines) >= _CROWDED * len(in_paragraphs)
    ended = sum(line.endswith(_ENDS) for line in lines) >= _MOST * len(lines)
    if len(in_paragraphs) == 1 or (crowded and ended):
        return tuple(unique(" ".join(line.split()) for line in lines))
    return in_paragraphs


DEFAULT_NEUTRAL = paragraphs(
    resources.files("real_tasks.questions").joinpath("neutral.txt").read_text(encoding="utf-8")
)
"""Everyday descriptions without a fact at issue, for behaviours that have no texts of their own."""


def load_neutral(source: str, limit: int) -> tuple[str, ...]:
    """Return neutral texts of the user's, all different.

    Args:
        source: a text file with a text a line, or blank lines between texts (see `neutral_texts`);
            a data file (.jsonl, .json, .csv, .parquet) with a column ``text`` or a single column;
            or the column of a Hub data set as ``hub:org/name:config:split:column`` (config may be
            empty).
        limit: most texts taken, the first.

    Raises:
        UserInputError: there is no such text, or a single one: tuning and tests need their own.
    """
    path = expanded(source)
    if source.startswith(HUB_PREFIX):
        texts = _of_hub(source, limit)
    elif path.suffix.lower() in _TABLES:
        texts = _of_table(path)
    else:
        texts = neutral_texts(_read(path))
    if not texts:
        raise UserInputError(
            f"evaluation.neutral: {source!r} holds no text; expected a text a line, or blank lines "
            "between texts"
        )
    if len(texts) < 2:
        raise UserInputError(
            f"evaluation.neutral: {source!r} holds a single text ({shortened(texts[0])}), but "
            "tuning and tests need texts of their own; expected a text a line, or blank lines "
            "between texts; add some"
        )
    return texts[:limit]


def _of_table(path: Path) -> tuple[str, ...]:
    file = read_data_file(path)
    if file.problems:
        raise UserInputError(f"evaluation.neutral: {path.name!r}, {file.problems[0]}; mend it")
    column = "text" if "text" in file.columns else file.columns[0]
    if column != "text" and len(file.columns) > 1:
        raise UserInputError(
            f"evaluation.neutral: {path.name!r} has no column 'text', and the columns "
            f"{', '.join(map(repr, file.columns))}; rename one of them"
        )
    texts = []
    for row in file.rows:
        try:
            texts.append(collapsed(text_of(row, column)))
        except BadRow as error:
            raise UserInputError(
                f"evaluation.neutral: {path.name!r}, line {row.line}: {error}"
            ) from error
    return tuple(unique(texts))


def _of_hub(source: str, limit: int) -> tuple[str, ...]:
    parts = source.removeprefix(HUB_PREFIX).split(":")
    if len(parts) != 4 or not (parts[0] and parts[2] and parts[3]):
        raise UserInputError(
            f"evaluation.neutral is {source!r}; expected hub:org/name:config:split:column, with an "
            "empty config where the data set has one only"
        )
    name, config, split, column = parts
    texts: dict[str, None] = {}
    for record in hub_records(name, config or None, split):
        if not isinstance(record.get(column), str):
            raise UserInputError(
                f"evaluation.neutral: {name!r} has no column {column!r} of texts; its columns are "
                f"{', '.join(map(repr, record))}"
            )
        texts |= {text: None for text in paragraphs(record[column])}
        if len(texts) >= limit:
            break
    return tuple(texts)


def _read(path: Path) -> str:
    try:
        text = decoded(path, regular(path).read_bytes())
    except OSError as error:
        raise UserInputError(
            f"evaluation.neutral: the text file {str(path)!r} cannot be read ({error.strerror}); "
            "correct the path"
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if wrong := wrong_character(line):
            raise UserInputError(
                f"evaluation.neutral: {str(path)!r}, line {number}: not UTF-8 ({wrong}); save the "
                "file as UTF-8"
            )
    return text
