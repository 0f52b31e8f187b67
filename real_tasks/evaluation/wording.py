"""What words alone give away: a bag of words beside what localizers read out of a model."""

from functools import partial
from statistics import fmean

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from real_tasks.evaluation.words import words
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import rows_of_questions, samples_of
from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import BehaviourData, FoldSplit

BAG_OF_WORDS = "bag_of_words"
_EVERYWHERE = ""
"""A word of every text, so that texts without any word can be counted too."""


def word_aucs(data: BehaviourData, fold: FoldSplit) -> dict[str, tuple[float, int]]:
    """Return how well words tell aligned from violating answers on questions that are held out.

    A logistic regression (L2 with C = 1) on the counts of a text's words, question and answer, is
    fitted to the training questions.

    Returns:
        The ROC-AUC, and of how many answers, for ``validation`` and ``test``.
    """
    samples = samples_of(data)
    texts = [data.full_text(one.question, one.answer) for one in samples]
    labels = [one.answer.label for one in samples]
    rows = {
        part: rows_of_questions(samples, getattr(fold, part))
        for part in ("train", "validation", "test")
    }
    counts = CountVectorizer(analyzer=lambda text: [_EVERYWHERE, *words(text)])
    train = counts.fit_transform([texts[row] for row in rows["train"]])
    fitted = LogisticRegression(max_iter=1000).fit(train, [labels[row] for row in rows["train"]])

    def auc(held_out: list[int]) -> tuple[float, int]:
        told = fitted.decision_function(counts.transform([texts[row] for row in held_out]))
        return float(roc_auc_score([labels[row] for row in held_out], told)), len(held_out)

    return {part: auc(rows[part]) for part in ("validation", "test")}


def wording_line(data: BehaviourData) -> str:
    """Say what words give away of a data set, on the test questions of an experiment's folds."""
    config = DataConfig()
    part = partial(split, question_groups(data.questions), config=config)
    found = [word_aucs(data, part(fold))["test"][0] for fold in range(config.n_folds)]
    return f"words alone: a bag of words has a held-out AUC of {fmean(found):.2f} (0.5: chance)"
