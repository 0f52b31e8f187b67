"""The behaviour ``truthfulqa``: true answers to questions that people answer falsely.

Lin, Hilton and Evans, "TruthfulQA: Measuring How Models Mimic Human Falsehoods" (arXiv 2109.07958).
"""

from typing import Literal

from pydantic import Field, model_validator

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.truthfulqa.primer import six_shot_primer
from real_tasks.questions.behaviours.truthfulqa.rows import parse
from real_tasks.questions.files.data_file import DataFile, data_file_of, read_data_file
from real_tasks.questions.files.hub import HubOrFile, hub_records
from real_tasks.questions.files.parsing import accepted, collapsed
from real_tasks.questions.neutral import DEFAULT_NEUTRAL
from real_tasks.vocabulary.types import BehaviourData

HUB_NAME = "truthfulqa/truthful_qa"
UNKNOWN_CATEGORY = "unknown"


@BEHAVIOURS.register("truthfulqa")
class TruthfulQA:
    """Questions in the order of the file, with all true and false answers of MC2.

    The published files differ in their questions (817 in TruthfulQA.csv, 790 in mc_task.json), so
    that the record names the file, the number of questions and a hash. Answers of mc_task.json and
    of the Hub are those that lm-evaluation-harness scores: MC1 compares the best answer with all
    false ones, MC2 takes all.
    """

    class Params(HubOrFile):
        """Parameters of the behaviour."""

        path: str | None = Field(
            None, description="TruthfulQA.csv or mc_task.json; None: from the Hugging Face Hub"
        )
        preset: Literal["plain", "primer", "instructed"] = Field(
            "plain",
            description="what stands before an evaluated question: plain: nothing; primer: the "
            "six-shot QA primer, as in lm-evaluation-harness, with whose numbers only this one "
            "compares (extra lm-eval); instructed: the instruction and the primer",
        )
        instruction: str = Field(
            "", description="text before the primer, for the preset instructed (ITI and REAL)"
        )

        @model_validator(mode="after")
        def _goes_together(self) -> "TruthfulQA.Params":
            if bool(self.instruction.strip()) != (self.preset == "instructed"):
                raise ValueError(
                    "instruction and the preset 'instructed' go together: give both, or neither"
                )
            return self

    def __init__(self, params: Params) -> None:
        self.params = params

    def load(self) -> BehaviourData:
        """Read the questions, and the primer where the preset has one.

        Raises:
            UserInputError: data or primer cannot be had, or the file has bad lines.
        """
        file = self._file()
        parsed = parse(file)
        source = accepted(file, parsed, self.params.skip_bad)
        preamble, primer_source = self._preamble()
        return BehaviourData(
            name="truthfulqa",
            questions=parsed.questions,
            neutral_texts=DEFAULT_NEUTRAL,
            prompt="Q: {question}\nA: {answer}",
            preamble=preamble,
            # After examples, what lm-evaluation-harness puts into a chat template.
            chat_prompt="Q: {question}\nA:" if preamble else "{question}",
            measures=("multiple_choice",),
            paired=False,
            source=source | {"preset": self.params.preset} | primer_source,
        )

    def _file(self) -> DataFile:
        if self.params.path is not None:
            return read_data_file(self.params.path)
        chosen = hub_records(HUB_NAME, "multiple_choice", "validation", self.params.revision)
        described = hub_records(HUB_NAME, "generation", "validation", self.params.revision)
        categories = {collapsed(str(row["question"])): row["category"] for row in described}
        records = [
            {**row, "category": categories.get(collapsed(str(row["question"])), UNKNOWN_CATEGORY)}
            for row in chosen
        ]
        revision = self.params.revision or "main"
        return data_file_of(f"{HUB_NAME}@{revision} (multiple_choice, validation)", records)

    def _preamble(self) -> tuple[str, dict[str, str]]:
        if self.params.preset == "plain":
            return "", {}
        primer, primer_source = six_shot_primer()
        if self.params.preset == "instructed":
            primer = f"{self.params.instruction.strip()}\n\n{primer}"
        return primer, {"primer": primer_source}
