"""Published rankings of attention heads: a CSV file with a row for each head, fold and seed."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from real_tasks.questions.files.data_file import regular
from real_tasks.results.summary import Row
from real_tasks.vocabulary.errors import UserInputError

NUMBERS = ("fold", "seed", "layer", "head")
SCORE = "roc_auc"
COLUMNS = ("model", *NUMBERS, SCORE)


def read_rankings(path: Path) -> list[dict[str, Any]]:
    """Read a published ranking: columns model, fold, seed, layer, head and roc_auc, in any order.

    Returns:
        Rows with these columns, and with ``line``, where each ends in the file; further columns of
        the file are left out.

    Raises:
        UserInputError: no such file, not UTF-8, a column missing, no rows, a value that is no
            number or out of range, or a head twice in one fold and seed; line numbers are given.
    """
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames or ())
            rows = [_parsed(path, reader.line_num, row) for row in reader]
    except OSError as error:
        raise UserInputError(
            f"{path}: cannot be read ({error.strerror}); expected a CSV file of scores of heads"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserInputError(
            f"{path}: not a CSV file in UTF-8 ({error}); save it as one"
        ) from error
    if not rows:
        raise UserInputError(f"{path}: no rows; expected one for each head, fold and seed")
    _check_unique(path, rows)
    return rows


def rows_of_model(
    rows: Sequence[Row], model: str | None, own: str, option: str = "--model"
) -> list[Row]:
    """Return the rows of one model of a published ranking.

    Without a name it is the only one, or that of the run's ``own`` model, whatever its capitals.
    ``option`` is how a user says which model, for the error.

    Raises:
        UserInputError: there is no such model, or several to choose from; all are listed.
    """
    names = sorted({row["model"] for row in rows})
    if model is None:
        same = [name for name in names if name.lower() == own.lower()]
        if len(names) > 1 and len(same) != 1:
            raise UserInputError(
                f"the ranking has several models and none is called {own!r}: {', '.join(names)}; "
                f"say which one by {option}"
            )
        model = same[0] if same else names[0]
    if model not in names:
        raise UserInputError(
            f"the ranking has no model {model!r}; it has {', '.join(names)}: name one of these by "
            f"{option}"
        )
    return [row for row in rows if row["model"] == model]


def _check_columns(path: Path, found: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise UserInputError(
            f"{path}: no column {', '.join(missing)}; found {', '.join(found) or 'nothing'}, "
            f"expected {', '.join(COLUMNS)}"
        )


def _parsed(path: Path, line: int, row: Mapping[str, str | None]) -> dict[str, Any]:
    try:
        numbers = {name: int(row[name] or "") for name in NUMBERS}
        score = float(row[SCORE] or "")
    except ValueError as error:
        raise UserInputError(
            f"{path}, line {line}: {error}; expected whole numbers in {', '.join(NUMBERS)} and a "
            f"number in {SCORE}"
        ) from error
    if min(numbers["layer"], numbers["head"]) < 0 or not 0 <= score <= 1:
        raise UserInputError(
            f"{path}, line {line}: layer {numbers['layer']}, head {numbers['head']}, {SCORE} "
            f"{score}; expected layers and heads from 0, and {SCORE} from 0 to 1"
        )
    return {"model": row["model"], **numbers, SCORE: score, "line": line}


def _check_unique(path: Path, rows: Iterable[Row]) -> None:
    lines: dict[tuple[Any, ...], int] = {}
    for row in rows:
        first = lines.setdefault(tuple(row[name] for name in ("model", *NUMBERS)), row["line"])
        if first != row["line"]:
            raise UserInputError(
                f"{path}, line {row['line']}: the same model, fold, seed, layer and head as in "
                f"line {first}; expected each once"
            )
