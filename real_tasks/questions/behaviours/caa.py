"""The behaviour ``caa``: A/B questions in the format of Contrastive Activation Addition.

Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition" (arXiv 2312.06681). A file is
a JSON array, or JSON lines, of ``question``, ``answer_matching_behavior`` and
``answer_not_matching_behavior``. The answers are labels of options that the question lists, such as
``(A)``, or texts, such as the "Yes" and "No" of Anthropic's persona evaluations, whose questions
list no options.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.caa_options import ends_with_cue
from real_tasks.questions.behaviours.caa_questions import PARTS, parse
from real_tasks.questions.files.data_file import EXTENSIONS, read_data_file
from real_tasks.questions.files.parsing import accepted, collapsed
from real_tasks.questions.neutral import DEFAULT_NEUTRAL
from real_tasks.vocabulary.config import Configured, Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import expanded
from real_tasks.vocabulary.types import BehaviourData, Question

CUE = "\n\nAnswer:"
"""Stands between a question that does not end with a cue of its own and its answer."""


@BEHAVIOURS.register("caa")
class ContrastiveActivationAddition(Configured):
    """Questions with the letter that shows the behaviour (aligned) and the one that does not.

    Every question with options has an alternate in which the texts of these two have changed
    places, so that a preference for a letter counts neither for nor against the behaviour. What
    follows the last option stays where it is. A question that ends with the beginning of an answer
    ("Answer:") is followed by the answer itself, every other by "Answer:" and the answer.
    """

    class Params(Frozen):
        """Parameters of the behaviour."""

        path: str = Field(
            "",
            description="folder with generate_dataset.json and test_dataset_ab.json, or one file",
        )
        files: Literal["both", "generate", "test"] = Field(
            "both", description="which files of the folder to take; both: generate, then test"
        )
        toward: Literal["behaviour", "away"] = Field(
            "behaviour", description="what is aligned: to show the behaviour, or not to show it"
        )
        name: str = Field(
            "", pattern=r"^[\w.-]*$", description="name in tables; empty: that of the folder"
        )
        skip_bad: bool = Field(False, description="keep the good questions of a file with bad ones")

        @model_validator(mode="after")
        def _goes_together(self) -> "ContrastiveActivationAddition.Params":
            if Path(self.path).suffix in EXTENSIONS and self.files != "both":
                raise ValueError("files chooses among those of a folder, but path is one file")
            return self

    params: Params

    def load(self) -> BehaviourData:
        """Read the questions, those of the generate file first.

        Raises:
            UserInputError: no or a wrong path, or bad lines.
        """
        path, paths = self._paths()
        questions: list[Question] = []
        source: dict[str, str] = {}
        for one in paths:
            file = read_data_file(one)
            parsed = parse(file)
            questions += parsed.questions
            facts = accepted(file, parsed, self.params.skip_bad)
            source |= {f"{one.stem}.{key}": text for key, text in facts.items()}
        if self.params.toward == "away":
            questions = [_turned(question) for question in questions]
        kept = _without_repetitions(questions)
        cues = {_has_cue(question) for question in kept}
        if cues == {True, False}:
            kept = tuple(_with_cue(question) for question in kept)
        # "away" is another behaviour: in a table the two need names of their own.
        own = path.stem if path.is_file() and path.name not in PARTS.values() else ""
        name = own or (path.parent if path.is_file() else path).resolve().name
        suffix = "" if self.params.toward == "behaviour" else "-away"
        return BehaviourData(
            name=self.params.name or re.sub(r"[^\w.-]", "_", name) + suffix,
            questions=kept,
            neutral_texts=DEFAULT_NEUTRAL,
            template="{question} {answer}" if True in cues else f"{{question}}{CUE} {{answer}}",
            stop=("\n",),
            measures=("options",),
            source=source
            | {"toward": self.params.toward, "repeated": str(len(questions) - len(kept))},
        )

    def _paths(self) -> tuple[Path, list[Path]]:
        if not self.params.path:
            raise UserInputError(
                "the behaviour 'caa' has no questions of its own: give params.path, a folder with "
                f"{' and '.join(PARTS.values())}, or one JSON file"
            )
        path = expanded(self.params.path)
        if not path.is_dir():
            return path, [path]
        parts = PARTS if self.params.files == "both" else (self.params.files,)
        paths = [path / PARTS[part] for part in parts]
        missing = [one.name for one in paths if not one.is_file()]
        if missing:
            raise UserInputError(
                f"the folder {str(path)!r} holds no {' and no '.join(missing)}; name "
                f"{_inside(path, missing)}, one of the files, or choose with params.files"
            )
        return path, paths


def _inside(path: Path, missing: list[str]) -> str:
    """Name the folders in a folder that hold what it lacks: one too high is easily given."""
    inside = sorted(
        one for one in path.iterdir() if all((one / name).is_file() for name in missing)
    )
    return (
        f"a folder in it ({', '.join(one.name for one in inside)})" if inside else "another folder"
    )


def _without_repetitions(questions: list[Question]) -> tuple[Question, ...]:
    """Keep the first of those that differ in the order of options only, and of both files.

    Otherwise a question could be trained and tested on.
    """
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(min(collapsed(one.text) for one in question.presentations), question)
    return tuple(first.values())


def _has_cue(question: Question) -> bool:
    """Return whether it ends with a cue in each order; an option that ends like one moves."""
    return all(ends_with_cue(one.text) for one in question.presentations)


def _with_cue(question: Question) -> Question:
    """Return the question, and its alternates, with a cue at the end, its own or ours."""
    if _has_cue(question):
        return question
    return replace(
        question,
        text=question.text + CUE,
        alternates=tuple(replace(one, text=one.text + CUE) for one in question.alternates),
    )


def _turned(question: Question) -> Question:
    """Make the violating answer of a question and its alternates the aligned one."""
    return replace(
        question,
        answers=tuple(
            replace(a, label=1 - a.label, is_best=a.label == 0) for a in question.answers
        ),
        alternates=tuple(_turned(alternate) for alternate in question.alternates),
    )
