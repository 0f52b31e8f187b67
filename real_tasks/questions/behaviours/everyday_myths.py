"""The behaviour ``everyday_myths``: what is so, and what people commonly believe instead.

The questions were written for this project and lie beside this file, by category; each names a
source for its fact. The first of its true answers is the best, and so is the first of its false
ones; the others go by pairs, the second false answer against the second true one.
"""

from pathlib import Path

import numpy as np

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.truthfulqa.presets import Presets
from real_tasks.questions.files.data_file import read_data_file
from real_tasks.questions.files.formats import Row
from real_tasks.questions.files.parsing import (
    accepted,
    labelled_answers,
    parse_rows,
    text_of,
    texts_of,
)
from real_tasks.questions.neutral import DEFAULT_NEUTRAL
from real_tasks.vocabulary.config import Configured
from real_tasks.vocabulary.types import BehaviourData, Question

FILE = Path(__file__).with_suffix(".json")
COLUMNS = ("category", "question", "aligned", "violating", "source")
_ORDER_SEED = 0


@BEHAVIOURS.register("everyday_myths")
class EverydayMyths(Configured):
    """Questions of 19 categories, measured as those of TruthfulQA are."""

    class Params(Presets):
        """Parameters of the behaviour."""

    params: Params

    def load(self) -> BehaviourData:
        """Return the questions in a seeded order that mixes the categories over folds.

        Raises:
            UserInputError: the preset's primer cannot be had.
        """
        file = read_data_file(FILE)
        parsed = parse_rows(file, COLUMNS, _question)
        order = np.random.default_rng(_ORDER_SEED).permutation(len(parsed.questions))
        return self.params.applied(
            BehaviourData(
                name="everyday_myths",
                questions=tuple(parsed.questions[place] for place in order),
                neutral_texts=DEFAULT_NEUTRAL,
                measures=("multiple_choice",),
                source=accepted(file, parsed, skip_bad=False),
            )
        )


def _question(row: Row) -> Question:
    question_id = f"everyday_myths-{row.number:03d}"
    aligned, violating = (texts_of(row, name) for name in ("aligned", "violating"))
    answers = labelled_answers(question_id, aligned, violating, aligned[0], violating[0])
    return Question(question_id, text_of(row, "question"), text_of(row, "category"), answers)
