"""What is in a user's data file, and what is wrong with it, in sentences."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from real_tasks.questions.behaviours import caa, jsonl, knowledge_conflict
from real_tasks.questions.behaviours.truthfulqa import rows as truthfulqa_rows
from real_tasks.questions.files.data_file import DataFile, read_data_file
from real_tasks.questions.files.formats import Problem
from real_tasks.questions.files.parsing import Parsed
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Question

LEAST_QUESTIONS = 8
"""Of a run: 4 for each of its folds, which are 2 at least."""
_LONGEST_LIST = 12


@dataclass(frozen=True)
class _Kind:
    """A form of data: the behaviour that reads it, and columns that only it has."""

    name: str
    behaviour: str
    marks: tuple[str, ...]
    expected: tuple[str, ...]
    parse: Callable[[DataFile], Parsed]


_KINDS = (
    _Kind(
        "TruthfulQA, as mc_task.json",
        "truthfulqa",
        ("mc1_targets",),
        truthfulqa_rows.TARGETS_COLUMNS,
        truthfulqa_rows.parse,
    ),
    _Kind(
        "TruthfulQA, as TruthfulQA.csv",
        "truthfulqa",
        ("Best Answer",),
        truthfulqa_rows.CSV_COLUMNS,
        truthfulqa_rows.parse,
    ),
    _Kind("A/B questions of CAA", "caa", (caa.MATCHING,), caa.COLUMNS, caa.parse),
    _Kind(
        "knowledge conflict, as NQ-Swap",
        "knowledge_conflict",
        ("sub_context",),
        knowledge_conflict.COLUMNS,
        knowledge_conflict.parse,
    ),
    _Kind("own questions", "jsonl", ("question",), jsonl.COLUMNS, jsonl.parse),
)


@dataclass(frozen=True)
class FileCheck:
    """What a data file holds.

    Attributes:
        file: its name.
        format: ``jsonl``, ``json``, ``csv`` or ``parquet``.
        kind: the form of its questions, in words; empty where the columns are of none.
        behaviour: the behaviour that reads it; empty likewise.
        n_rows: lines or rows in all, bad ones included.
        n_questions: questions that can be used.
        answers: how many answers of them are ``aligned`` and ``violating``.
        categories: how many of them are of each category.
        longest: the most characters of a ``question``, ``context`` and ``answer``.
        notes: what is left out of good rows.
        unused: columns that are not read.
        problems: of the bad lines.
    """

    file: str
    format: str
    kind: str
    behaviour: str
    n_rows: int
    n_questions: int
    answers: Mapping[str, int]
    categories: Mapping[str, int]
    longest: Mapping[str, int]
    notes: Mapping[str, str]
    unused: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def enough(self) -> bool:
        """Whether a run could split the questions into its folds."""
        return self.n_questions >= LEAST_QUESTIONS

    @property
    def good(self) -> bool:
        """Whether all of the file can be used."""
        return not self.problems and self.n_questions > 0

    def lines(self) -> list[str]:
        """Return sentences to print: what there is, then every problem with its line."""
        kind = f"{self.kind} (behaviour {self.behaviour})" if self.kind else "columns of no kind"
        found = [
            f"{self.file}: {self.format}, {kind}",
            f"{self.n_questions} questions in {self.n_rows} rows",
        ]
        if self.n_questions:
            found += [
                "answers: " + _counts(self.answers),
                f"categories ({len(self.categories)}): {_counts(self.categories)}",
                "longest, in characters: " + _counts(self.longest),
            ]
        found += [f"left out, {what.replace('_', ' ')}: {count}" for what, count in _sorted(self)]
        if self.unused:
            found.append("columns that are not read: " + ", ".join(self.unused))
        if not self.enough:
            found.append(
                f"a run needs at least {LEAST_QUESTIONS} questions (4 for each of at least 2 folds)"
            )
        n_problems = len(self.problems)
        found.append(f"{n_problems or 'no'} problem{'s' * (n_problems != 1)}")
        return found + [str(problem) for problem in self.problems]


def check_file(path: str | Path) -> FileCheck:
    """Return what a data file holds and what is wrong with it; its columns tell what it is.

    Raises:
        UserInputError: there is no such file, or nothing of it can be read.
    """
    file = read_data_file(path)
    kind = next((kind for kind in _KINDS if set(kind.marks) <= set(file.columns)), None)
    parsed = _parsed(file, kind)
    return FileCheck(
        file=file.name,
        format=file.format,
        kind=kind.name if kind else "",
        behaviour=kind.behaviour if kind else "",
        n_rows=len(file.rows) + len(file.problems),
        n_questions=len(parsed.questions),
        answers=_answers(parsed.questions),
        categories=dict(Counter(question.category for question in parsed.questions)),
        longest=_longest(parsed.questions),
        notes=parsed.notes,
        unused=_unused(file, kind),
        problems=parsed.problems,
    )


def _parsed(file: DataFile, kind: _Kind | None) -> Parsed:
    if kind is None:
        fault = f"no kind of data has the columns {', '.join(map(repr, file.columns)) or '(none)'}"
        known = "; ".join(f"{one.name}: {', '.join(one.expected)}" for one in _KINDS)
        return Parsed((), (*file.problems, Problem(1, f"{fault}; expected one of: {known}")))
    try:
        return kind.parse(file)
    except UserInputError as error:
        return Parsed((), (*file.problems, Problem(1, str(error))))


def _answers(questions: Iterable[Question]) -> dict[str, int]:
    labels = Counter(answer.label for question in questions for answer in question.answers)
    return {"aligned": labels[1], "violating": labels[0]}


def _longest(questions: Iterable[Question]) -> dict[str, int]:
    longest: dict[str, int] = {"question": 0, "context": 0, "answer": 0}
    for question in questions:
        texts = [("question", question.text), ("context", question.context)]
        for name, text in [*texts, *(("answer", answer.text) for answer in question.answers)]:
            longest[name] = max(longest[name], len(text))
    return {name: length for name, length in longest.items() if length}


def _unused(file: DataFile, kind: _Kind | None) -> tuple[str, ...]:
    """Only of own questions: published files have columns that are known not to be needed."""
    if kind is None or kind.behaviour != "jsonl":
        return ()
    known = (*jsonl.COLUMNS, *jsonl.OPTIONAL_COLUMNS)
    return tuple(name for name in file.columns if name not in known)


def _sorted(check: FileCheck) -> list[tuple[str, str]]:
    return sorted(check.notes.items())


def _counts(counts: Mapping[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])[:_LONGEST_LIST]
    more = ", ..." if len(counts) > _LONGEST_LIST else ""
    return ", ".join(f"{name} {count}" for name, count in largest) + more
