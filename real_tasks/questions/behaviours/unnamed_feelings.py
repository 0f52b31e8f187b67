"""The behaviour ``unnamed_feelings``: to tell what moves people, without a word for a feeling.

128 pairs that were written for this project lie beside this file, 16 of each of eight feelings. A
pair begins with one sentence and goes on with either of two: in one something happens that is
felt, in the other hardly anything does. They are alike in length and share most of their words, and
none of them names a feeling or how one shows. Length does not tell which is which, nor does a bag
of words by logistic regression, by which words were chosen; other read-outs of the wording tell a
little (pieces of words, with an AUC of about .62): what is read out of a model is to beat these.
Keyword-free twins are the idea of AIPsy-Affect (arXiv 2604.23719); no item is from there.
"""

from pathlib import Path

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.jsonl import OwnFile
from real_tasks.questions.files.data_file import read_data_file
from real_tasks.vocabulary.config import Configured
from real_tasks.vocabulary.types import BehaviourData

FILE = Path(__file__).with_suffix(".jsonl")


@BEHAVIOURS.register("unnamed_feelings")
class UnnamedFeelings(Configured):
    """Beginnings of stories with two continuations; aligned is the one that is felt.

    The category of a pair is its feeling; so is the class of its aligned continuation, and that of
    the other is ``neutral``.
    """

    def load(self) -> BehaviourData:
        """Return the pairs in an order that mixes the feelings over folds."""
        texts = OwnFile.Params(
            template="{question} {answer}",
            chat_prompt="Go on with one more sentence: {question}",
            stop=("\n",),
            measures=("multiple_choice",),
        )
        return OwnFile(texts).of(read_data_file(FILE), "unnamed_feelings")
