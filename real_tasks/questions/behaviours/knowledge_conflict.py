"""The behaviour ``knowledge_conflict``: a passage says one thing, a model's memory another.

The fields are those of NQ-Swap: Longpre et al., "Entity-Based Knowledge Conflicts in Question
Answering" (arXiv 2109.05052). The passage shown is the one with the substituted answer.
"""

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.files.data_file import DataFile, data_file_of, read_data_file
from real_tasks.questions.files.formats import Row
from real_tasks.questions.files.hub import HubOrFile, hub_records
from real_tasks.questions.files.parsing import (
    Parsed,
    accepted,
    collapsed,
    labelled_answers,
    optional_text,
    parse_rows,
    text_of,
    texts_of,
    unique,
)
from real_tasks.questions.neutral import DEFAULT_NEUTRAL
from real_tasks.vocabulary.config import Configured, PositiveInt
from real_tasks.vocabulary.types import BehaviourData, Question

HUB_NAME = "pminervini/NQ-Swap"
HUB_SPLIT = "dev"
COLUMNS = ("question", "org_answer", "sub_context", "sub_answer")


@BEHAVIOURS.register("knowledge_conflict")
class KnowledgeConflict(Configured):
    """Questions on a passage with a substituted answer; steer toward the passage or the memory.

    Aligned are the answers of the passage (``sub_answer``) or those before the substitution
    (``org_answer``), which a model remembers if it knows them.
    """

    class Params(HubOrFile):
        """Parameters of the behaviour."""

        path: str | None = Field(
            None,
            description="file with the fields of NQ-Swap; None: NQ-Swap from the Hugging Face Hub",
        )
        toward: Literal["context", "memory"] = Field(
            "context", description="which answers are aligned"
        )
        limit: PositiveInt | None = Field(None, description="first questions taken; None: all")

    params: Params

    def load(self) -> BehaviourData:
        """Read the questions.

        Raises:
            UserInputError: the data cannot be had, or the file has bad lines.
        """
        file = self._file()
        parsed = parse(file)
        source = accepted(file, parsed, self.params.skip_bad)
        questions = parsed.questions[: self.params.limit]
        if self.params.toward == "memory":
            questions = tuple(_toward_memory(question) for question in questions)
        other = "memory" if self.params.toward == "context" else "context"
        return BehaviourData(
            name="knowledge_conflict",
            questions=questions,
            neutral_texts=DEFAULT_NEUTRAL,
            template="{context}\nQ: {question} A: {answer}",
            prompt="{context}\nQ: {question}\nA: {answer}",
            chat_prompt="{context}\n\n{question}",
            stop=("\n", "Q:"),
            outcomes=(self.params.toward, other, "other"),
            source=source | {"questions": str(len(questions)), "toward": self.params.toward},
        )

    def _file(self) -> DataFile:
        if self.params.path is not None:
            return read_data_file(self.params.path)
        records: list[Any] = hub_records(HUB_NAME, None, HUB_SPLIT, self.params.revision)
        return data_file_of(f"{HUB_NAME}@{self.params.revision or 'main'} ({HUB_SPLIT})", records)


def parse(file: DataFile) -> Parsed:
    """Make questions of the rows, answers of the passage aligned.

    A question that stands there with several passages is taken with the first: the others would put
    what a model remembers of it into the training part and into the test part.

    Raises:
        UserInputError: a column is missing.
    """
    parsed = parse_rows(file, COLUMNS, _question)
    first: dict[str, Question] = {}
    for question in parsed.questions:
        first.setdefault(collapsed(question.text), question)
    repeated = len(parsed.questions) - len(first)
    notes = {"questions_with_another_passage_left_out": str(repeated)} if repeated else {}
    return Parsed(tuple(first.values()), parsed.problems, notes)


def _question(row: Row) -> Question:
    context, memory = (unique(texts_of(row, name)) for name in ("sub_answer", "org_answer"))
    question_id = f"conflict-{row.number:05d}"
    return Question(
        question_id,
        text_of(row, "question"),
        optional_text(row, "category", "all"),
        labelled_answers(question_id, context, memory, context[0], memory[0]),
        text_of(row, "sub_context"),
    )


def _toward_memory(question: Question) -> Question:
    """Turn the labels; the best answer of either side stays the best."""
    answers = tuple(replace(answer, label=1 - answer.label) for answer in question.answers)
    return replace(question, answers=answers)
