"""What stands before an evaluated question: parameters of TruthfulQA and of questions like it."""

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator

from real_tasks.questions.behaviours.truthfulqa.primer import six_shot_primer
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import BehaviourData


class Presets(Frozen):
    """The choice of what stands before a question, with its instruction."""

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
    def _goes_together(self) -> Self:
        if bool(self.instruction.strip()) != (self.preset == "instructed"):
            raise ValueError(
                "instruction and the preset 'instructed' go together: give both, or neither"
            )
        return self

    def applied(self, data: BehaviourData) -> BehaviourData:
        """Return the data with the preset's prompts, and a record of them.

        Raises:
            UserInputError: the primer cannot be had.
        """
        preamble, primer_source = self._preamble()
        return replace(
            data,
            prompt="Q: {question}\nA: {answer}",
            preamble=preamble,
            # After examples, what lm-evaluation-harness puts into a chat template.
            chat_prompt="Q: {question}\nA:" if preamble else "{question}",
            source={**data.source, "preset": self.preset, **primer_source},
        )

    def _preamble(self) -> tuple[str, dict[str, str]]:
        if self.preset == "plain":
            return "", {}
        primer, primer_source = six_shot_primer()
        if self.preset == "instructed":
            primer = f"{self.instruction.strip()}\n\n{primer}"
        return primer, {"primer": primer_source}
