"""The behaviour ``jsonl``: a user's own questions, in JSON lines, JSON, CSV or Parquet."""

import re
import string
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.files.data_file import DataFile, read_data_file
from real_tasks.questions.files.formats import Problem, Row
from real_tasks.questions.files.parsing import (
    Parsed,
    accepted,
    annotated,
    labelled_answers,
    optional_text,
    parse_rows,
    shortened,
    text_of,
    texts_of,
)
from real_tasks.questions.neutral import DEFAULT_NEUTRAL
from real_tasks.vocabulary.config import Configured, Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData, Question

COLUMNS = ("question", "aligned", "violating")
PREFERENCES = {"prompt": "question", "chosen": "aligned", "rejected": "violating"}
"""Columns of preference data, by what they are here."""
OPTIONAL_COLUMNS = ("context", "category", "best", "class", "pair", "condition", "marks")
CSV_SEPARATOR = "|"
"""Between the answers of a field of a CSV file, which has no lists."""

ALL = "all"
"""The category of questions whose file names none."""


def _checked_template(template: str) -> str:
    fields = _fields(template)
    if not template.endswith("{answer}") or fields.count("answer") != 1:
        raise ValueError("expected a template that ends with {answer}")
    return _checked_prompt(template, {"question", "context", "answer"})


def _checked_prompt(template: str, known: Collection[str] = ("question", "context")) -> str:
    fields = _fields(template)
    if "question" not in fields or not set(fields) <= {*known}:
        names = ", ".join(f"{{{name}}}" for name in sorted(known))
        raise ValueError(f"expected {{question}}, and no others than {names}; double other braces")
    return template


def _fields(template: str) -> list[str]:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"not a template ({error}); double braces that stand for no field") from (
            error
        )
    return [
        name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        for _, name, spec, conversion in parsed
        if name is not None
    ]


Template = Annotated[str, AfterValidator(_checked_template)] | None
ChatPrompt = Annotated[str, AfterValidator(lambda template: _checked_prompt(template))] | None


@BEHAVIOURS.register("jsonl")
class OwnFile(Configured):
    """Questions of a file with the fields question, aligned, violating.

    Those of preference data are taken for them: prompt, chosen, rejected.
    Fields that a question may have besides: context (a passage that it is about), category, best
    (the best of the aligned answers; the first without), condition (under which it is asked), and
    class, pair and marks of its answers, see `annotated`. ``aligned`` and ``violating`` are lists
    of texts, or one text; in CSV a text with ``|`` between answers. Either all questions have a
    context, or none has, but for those with a condition, which may be to have none.
    """

    class Params(Frozen):
        """Parameters of the behaviour."""

        path: str = Field("", description="the file: .jsonl, .json, .csv or .parquet")
        name: str = Field(
            "", pattern=r"^[\w.-]*$", description="name in tables; empty: that of the file"
        )
        template: Template = Field(
            None,
            description="texts whose activations are read, with {question}, {context}, and last "
            "{answer}; without: 'Q: {question} A: {answer}', after the context if there is one",
        )
        prompt: Template = Field(
            None, description="prompts of the evaluation, likewise; without: the template"
        )
        preamble: str = Field("", description="what stands before every prompt of the evaluation")
        chat_prompt: ChatPrompt = Field(
            None, description="what the user says in a chat template, with {question}, {context}"
        )
        stop: tuple[str, ...] = Field(("\n", "Q:"), description="strings that end an answer")
        measures: tuple[str, ...] = Field(
            ("multiple_choice", "generation"), min_length=1, description="what is measured"
        )
        skip_bad: bool = Field(False, description="keep the good lines of a file with bad ones")

    params: Params

    def load(self) -> BehaviourData:
        """Read the questions.

        Raises:
            UserInputError: no or a wrong path, bad lines, or a template that does not fit the file.
        """
        params = self.params
        if not params.path:
            raise UserInputError(
                "the behaviour 'jsonl' has no questions of its own: give params.path, a file with "
                f"the columns {', '.join(COLUMNS)}"
            )
        stem = re.sub(r"[^\w.-]", "_", Path(params.path).stem)
        return self.of(read_data_file(params.path), stem)

    def of(self, file: DataFile, name: str) -> BehaviourData:
        """Return the questions of rows that were read; they are called ``name`` if not otherwise.

        Raises:
            UserInputError: bad rows, or a template that does not fit them.
        """
        params, parsed = self.params, parse(file)
        source = accepted(file, parsed, params.skip_bad)
        passage = any(question.context for question in parsed.questions)
        for template in ("template", "prompt", "chat_prompt"):
            _check_passage(template, getattr(params, template), passage)
        before = "{context}\n" if passage else ""
        return BehaviourData(
            name=params.name or name,
            questions=parsed.questions,
            neutral_texts=DEFAULT_NEUTRAL,
            template=params.template or f"{before}Q: {{question}} A: {{answer}}",
            prompt=params.prompt,
            preamble=params.preamble,
            chat_prompt=params.chat_prompt or f"{before}{{question}}",
            stop=params.stop,
            measures=params.measures,
            source=source,
        )


def parse(file: DataFile) -> Parsed:
    """Make questions of the rows.

    Raises:
        UserInputError: a column is missing.
    """
    separator = CSV_SEPARATOR if file.format == "csv" else None
    file = _with_own_columns(file)
    parsed = _with_whole_pairs(
        file, parse_rows(file, COLUMNS, lambda row: _question(row, separator))
    )
    if not any(question.context for question in parsed.questions):
        return parsed
    lacking = [
        question.question_id
        for question in parsed.questions
        if not question.context and not question.condition
    ]
    return _without(
        file, parsed, dict.fromkeys(lacking, "no 'context', which other questions have")
    )


def _with_own_columns(file: DataFile) -> DataFile:
    """Return preference data with the columns of own questions, and any other file as it is.

    A file that has any of these columns itself is no preference data: two would become one.
    """
    if not set(PREFERENCES) <= set(file.columns) or set(COLUMNS) & set(file.columns):
        return file
    rows = (
        replace(row, fields={PREFERENCES.get(name, name): row.fields[name] for name in row.fields})
        for row in file.rows
    )
    columns = tuple(PREFERENCES.get(name, name) for name in file.columns)
    return replace(file, columns=columns, rows=tuple(rows))


def _with_whole_pairs(file: DataFile, parsed: Parsed) -> Parsed:
    """Leave out questions with a name of a pair that has no equal numbers of either label."""
    labels: dict[str, Counter[int]] = {}
    for question in parsed.questions:
        for answer in question.answers:
            labels.setdefault(answer.pair, Counter())[answer.label] += 1
    odd = {
        answer.pair: question.question_id
        for question in reversed(parsed.questions)
        for answer in question.answers
        if answer.pair and labels[answer.pair][0] != labels[answer.pair][1]
    }
    faults = {
        question_id: f"the pair {shortened(name)} has {labels[name][1]} aligned answers and "
        f"{labels[name][0]} violating; expected as many of each"
        for name, question_id in odd.items()
    }
    return _without(file, parsed, faults)


def _without(file: DataFile, parsed: Parsed, faults: Mapping[str, str]) -> Parsed:
    """Leave out the questions with faults, by their ids."""
    lines = {_question_id(row): row.line for row in file.rows}
    problems = [Problem(lines[question_id], fault) for question_id, fault in faults.items()]
    return Parsed(
        tuple(one for one in parsed.questions if one.question_id not in faults),
        tuple(sorted([*parsed.problems, *problems], key=lambda one: one.line)),
    )


def _question(row: Row, separator: str | None) -> Question:
    aligned, violating = (texts_of(row, name, separator) for name in ("aligned", "violating"))
    question_id, best = _question_id(row), optional_text(row, "best", aligned[0])
    answers = labelled_answers(question_id, aligned, violating, best)
    return Question(
        question_id,
        text_of(row, "question"),
        optional_text(row, "category", ALL),
        annotated(answers, row, separator),
        optional_text(row, "context"),
        condition=optional_text(row, "condition"),
    )


def _question_id(row: Row) -> str:
    return f"row-{row.number}"


def _check_passage(name: str, template: str | None, passage: bool) -> None:
    if template is not None and ("context" in _fields(template)) != passage:
        there, expected = ("", "with") if passage else ("no ", "without")
        raise UserInputError(
            f"the questions have {there}context; expected {name} {expected} {{context}}, found "
            f"{template!r}"
        )
