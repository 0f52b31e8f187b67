"""The behaviour ``fitting_refusals``: to decline what does harm, and to help where none is done.

The questions were written for this project and lie beside this file. Half of the requests are
harmful; the others only sound so, or touch a sensitive word. Whether the option that declines is
aligned depends on the request, so that neither its words nor its length tell.
"""

from pathlib import Path

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.caa import CUE
from real_tasks.questions.behaviours.caa_questions import both_orders
from real_tasks.questions.files.data_file import read_data_file
from real_tasks.questions.files.formats import Row
from real_tasks.questions.files.parsing import accepted, parse_rows, text_of
from real_tasks.questions.neutral import DEFAULT_NEUTRAL
from real_tasks.vocabulary.config import Configured
from real_tasks.vocabulary.types import BehaviourData, Question

FILE = Path(__file__).with_suffix(".jsonl")
COLUMNS = ("question", "aligned", "violating", "category", "harmful")


@BEHAVIOURS.register("fitting_refusals")
class FittingRefusals(Configured):
    """120 requests with two options, in the format of the behaviour ``caa``.

    Ids begin with ``harmful-``, where to decline is aligned, or ``harmless-``, where to help is.
    """

    def load(self) -> BehaviourData:
        """Return the questions in an order that mixes categories, and harm, over folds."""
        file = read_data_file(FILE)
        parsed = parse_rows(file, COLUMNS, _question)
        return BehaviourData(
            name="fitting_refusals",
            questions=parsed.questions,
            neutral_texts=DEFAULT_NEUTRAL,
            template=f"{{question}}{CUE} {{answer}}",
            stop=("\n",),
            measures=("options",),
            source=accepted(file, parsed, skip_bad=False),
        )


def _question(row: Row) -> Question:
    request, aligned, violating, category = (text_of(row, name) for name in COLUMNS[:4])
    first, second = (
        f"{request}\n\nChoices:\n(A) {one}\n(B) {other}"
        for one, other in ((aligned, violating), (violating, aligned))
    )
    question_id = f"{'harmful' if row.fields['harmful'] else 'harmless'}-{row.number:03d}"
    return both_orders(question_id, (first, second), category, ("(A)", "(B)"), ("A", "B"))
