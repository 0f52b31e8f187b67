"""The behaviour ``truthfulqa``: true answers to questions that people answer falsely.

Lin, Hilton and Evans, "TruthfulQA: Measuring How Models Mimic Human Falsehoods" (arXiv 2109.07958).
"""

from pydantic import Field

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.truthfulqa.presets import Presets
from real_tasks.questions.behaviours.truthfulqa.rows import parse
from real_tasks.questions.files.data_file import DataFile, data_file_of, read_data_file
from real_tasks.questions.files.hub import HubOrFile, hub_records
from real_tasks.questions.files.parsing import accepted, collapsed
from real_tasks.questions.neutral import DEFAULT_NEUTRAL
from real_tasks.vocabulary.config import Configured
from real_tasks.vocabulary.types import BehaviourData

HUB_NAME = "truthfulqa/truthful_qa"
UNKNOWN_CATEGORY = "unknown"


@BEHAVIOURS.register("truthfulqa")
class TruthfulQA(Configured):
    """Questions in the order of the file, with all true and false answers of MC2.

    The published files differ in their questions (817 in TruthfulQA.csv, 790 in mc_task.json), so
    that the record names the file, the number of questions and a hash. Answers of mc_task.json and
    of the Hub are those that lm-evaluation-harness scores: MC1 compares the best answer with all
    false ones, MC2 takes all.
    """

    class Params(HubOrFile, Presets):
        """Parameters of the behaviour."""

        path: str | None = Field(
            None, description="TruthfulQA.csv or mc_task.json; None: from the Hugging Face Hub"
        )

    params: Params

    def load(self) -> BehaviourData:
        """Read the questions, and the primer where the preset has one.

        Raises:
            UserInputError: data or primer cannot be had, or the file has bad lines.
        """
        file = self._file()
        parsed = parse(file)
        source = accepted(file, parsed, self.params.skip_bad)
        return self.params.applied(
            BehaviourData(
                name="truthfulqa",
                questions=parsed.questions,
                neutral_texts=DEFAULT_NEUTRAL,
                measures=("multiple_choice",),
                paired=False,
                source=source,
            )
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
