"""What is in a user's data file, and what is wrong with it, in sentences."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from real_tasks.questions.behaviours import caa_questions, jsonl, knowledge_conflict
from real_tasks.questions.behaviours.truthfulqa import rows as truthfulqa_rows
from real_tasks.questions.files.data_file import DataFile, read_data_file
from real_tasks.questions.files.formats import Problem
from real_tasks.questions.files.parsing import Parsed
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData, Question

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
    _Kind(
        "A/B questions of CAA",
        "caa",
        (caa_questions.MATCHING,),
        caa_questions.COLUMNS,
        caa_questions.parse,
    ),
    _Kind(
        "knowledge conflict, as NQ-Swap",
        "knowledge_conflict",
        ("sub_context",),
        knowledge_conflict.COLUMNS,
        knowledge_conflict.parse,
    ),
    _Kind("own questions", "jsonl", ("question",), jsonl.COLUMNS, jsonl.parse),
    _Kind("preferences", "jsonl", (*jsonl.PREFERENCES,), (*jsonl.PREFERENCES,), jsonl.parse),
)


@dataclass(frozen=True)
class FileCheck:
    """What a data file holds: its rows, the form of its questions (or None), and what they give."""

    file: DataFile
    kind: _Kind | None
    parsed: Parsed

    @property
    def behaviour(self) -> str:
        """The behaviour that reads it; empty where the columns are of none."""
        return self.kind.behaviour if self.kind else ""

    @property
    def enough(self) -> bool:
        """Whether a run could split the questions into its folds."""
        return len(self.parsed.questions) >= LEAST_QUESTIONS

    @property
    def good(self) -> bool:
        """Whether all of the file can be used."""
        return not self.parsed.problems and bool(self.parsed.questions)

    def data(self) -> BehaviourData:
        """Return the questions as those of a behaviour; its texts and templates are its own."""
        paired = self.behaviour != "truthfulqa"
        source = {"file": self.file.name}
        return BehaviourData(self.file.name, self.parsed.questions, paired=paired, source=source)

    def lines(self) -> list[str]:
        """Return sentences to print: what there is, then every problem with its line."""
        file, questions, problems = self.file, self.parsed.questions, self.parsed.problems
        kind = (
            f"{self.kind.name} (behaviour {self.behaviour})" if self.kind else "columns of no kind"
        )
        found = [
            f"{file.name}: {file.format}, {kind}",
            f"{len(questions)} questions in {len(file.rows) + len(file.problems)} rows",
        ]
        if questions:
            labels = Counter(answer.label for one in questions for answer in one.answers)
            categories = Counter(question.category for question in questions)
            found += [
                "answers: " + _counts({"aligned": labels[1], "violating": labels[0]}),
                f"categories ({len(categories)}): {_counts(categories)}",
                "longest, in characters: " + _counts(_longest(questions)),
            ]
        notes = sorted(self.parsed.notes.items())
        found += [f"left out, {what.replace('_', ' ')}: {count}" for what, count in notes]
        # Only of own questions: published files have columns that are known not to be needed.
        read = file.columns
        if self.kind and self.behaviour == "jsonl":
            read = (*self.kind.expected, *jsonl.OPTIONAL_COLUMNS)
        if unused := [name for name in file.columns if name not in read]:
            found.append("columns that are not read: " + ", ".join(unused))
        if not self.enough:
            found.append(
                f"a run needs at least {LEAST_QUESTIONS} questions (4 for each of at least 2 folds)"
            )
        found.append(f"{len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
        return found + [str(problem) for problem in problems]


def check_file(path: str | Path) -> FileCheck:
    """Return what a data file holds and what is wrong with it; its columns tell what it is.

    Raises:
        UserInputError: there is no such file, or nothing of it can be read.
    """
    file = read_data_file(path)
    kind = next((kind for kind in _KINDS if set(kind.marks) <= set(file.columns)), None)
    return FileCheck(file, kind, _parsed(file, kind))


def _parsed(file: DataFile, kind: _Kind | None) -> Parsed:
    if kind is None:
        fault = f"no kind of data has the columns {', '.join(map(repr, file.columns)) or '(none)'}"
        known = "; ".join(f"{one.name}: {', '.join(one.expected)}" for one in _KINDS)
        return Parsed((), (*file.problems, Problem(1, f"{fault}; expected one of: {known}")))
    try:
        return kind.parse(file)
    except UserInputError as error:
        return Parsed((), (*file.problems, Problem(1, str(error))))


def _longest(questions: Iterable[Question]) -> dict[str, int]:
    longest: dict[str, int] = {"question": 0, "context": 0, "answer": 0}
    for question in questions:
        texts = [("question", question.text), ("context", question.context)]
        for name, text in [*texts, *(("answer", answer.text) for answer in question.answers)]:
            longest[name] = max(longest[name], len(text))
    return {name: length for name, length in longest.items() if length}


def _counts(counts: Mapping[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])[:_LONGEST_LIST]
    more = ", ..." if len(counts) > _LONGEST_LIST else ""
    return ", ".join(f"{name} {count}" for name, count in largest) + more
