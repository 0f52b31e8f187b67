"""What can be wrong with questions, neutral texts, and the tokens that a model makes of them."""

from collections import Counter
from collections.abc import Sequence

from real_tasks.evaluation.measures import MEASURES
from real_tasks.evaluation.measuring import complete_evaluation
from real_tasks.evaluation.side_effects import neutral_rows
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.text_model import ReadsTexts
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import samples_of
from real_tasks.reading.activations import check_vocabulary
from real_tasks.reading.batches import check_lengths, encode
from real_tasks.reading.prompts import answered_text, prompt_text, reading_text
from real_tasks.vocabulary.errors import Faults, SeveralFaultsError, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import BehaviourData, Question

_MOST_TOLD = 5
"""Faults of single questions."""


def check_behaviour(data: BehaviourData, config: ExperimentConfig) -> None:
    """Check that questions, answers and labels can be split, scored and evaluated.

    Raises:
        UserInputError: all that is wrong, and how to mend it.
    """
    faults = Faults()
    with faults.told():
        unique("question id", [question.question_id for question in data.questions])
    asked = [" ".join(f"{question.context} {question.text}".split()) for question in data.questions]
    with faults.told():
        unique("question", asked)
    with faults.told():
        _check_questions(data)
    with faults.told():
        complete_evaluation(config.evaluation, data)
    with faults.told():
        _check_neutral(data, config)
    with faults.told():
        _check_folds(data, config)
    faults.tell()


def check_texts(model: ReadsTexts, data: BehaviourData, config: ExperimentConfig) -> None:
    """Check that the model knows and holds all texts that an experiment will give it.

    Raises:
        UserInputError: all that is wrong, and how to mend it.
    """
    faults, evaluation = Faults(), config.evaluation
    read = [reading_text(model, data, one.question, one.answer) for one in samples_of(data)]
    with faults.told():
        check_vocabulary(model, read)
    with faults.told():
        _check_fit(model, read)
    asked = [way for question in data.questions for way in question.presentations]
    generating = {MEASURES[name].generates for name in evaluation.measures or data.measures}
    if True in generating:
        with faults.told():
            prompts = [prompt_text(model, data, question) for question in data.questions]
            _check_fit(model, prompts, evaluation.max_new_tokens)
    if False in generating:
        with faults.told():
            _check_fit(model, [answered_text(model, data, q, a) for q in asked for a in q.answers])
    for start in range(2):
        with faults.told():
            neutral_rows(model, data.neutral_texts[start::2])
    faults.tell()


def _check_fit(model: ReadsTexts, texts: Sequence[str], new_tokens: int = 0) -> None:
    """Check the lengths of texts in tokens; a token is a byte at least."""
    limit = model.max_positions or 0
    sure = [text for text in texts if len(text.encode()) + new_tokens < limit // 2]
    others = list(dict.fromkeys(texts)) if len(sure) < len(texts) else []
    check_lengths(model, [len(row) for row in encode(model, others)], others, new_tokens)


def unique(what: str, values: Sequence[object]) -> None:
    """Check that no value is there twice.

    Raises:
        UserInputError: one is; it is named as ``what``.
    """
    value, count = Counter(values).most_common(1)[0] if values else ("", 0)
    if count > 1:
        raise UserInputError(f"{what} {value!r} appears {count} times; each must be there once")


def _check_questions(data: BehaviourData) -> None:
    faults = Faults()
    for question in data.questions:
        for presentation in question.presentations:
            with faults.told():
                _check_question(presentation)
    try:
        faults.tell()
    except SeveralFaultsError as error:
        told, further = error.faults[:_MOST_TOLD], len(error.faults) - _MOST_TOLD
        rest = [f"{further} more questions like these"] if further > 0 else []
        raise SeveralFaultsError([*told, *rest]) from error


def _check_neutral(data: BehaviourData, config: ExperimentConfig) -> None:
    if not data.neutral_texts:
        raise UserInputError(
            f"the behaviour {data.name!r} brings no neutral text to measure side effects on; name "
            "a text file in evaluation.neutral"
        )
    if len(data.neutral_texts) < 2:
        raise UserInputError(
            f"the behaviour {data.name!r} has a single neutral text (evaluation.neutral_texts is "
            f"{config.evaluation.neutral_texts}), but tuning and tests need texts of their own; "
            "take at least 2"
        )


def _check_folds(data: BehaviourData, config: ExperimentConfig) -> None:
    groups, n_folds = question_groups(data.questions), config.data.n_folds
    n_questions, least = len(set(groups)), 4 * n_folds
    if n_questions < least:
        joined = "" if n_questions == len(groups) else " (those that pairs join count as one)"
        raise UserInputError(
            f"the behaviour {data.name!r} has {n_questions} questions{joined}, but {n_folds} folds "
            f"with training and validation parts need at least {least}; add questions or lower "
            "data.n_folds"
        )
    for fold in range(n_folds):
        parts = split(groups, fold, config.data)
        for localizer in (config.localizer, *config.baselines):
            params = LOCALIZERS[localizer.name].Params.model_validate(localizer.params)
            inner = getattr(params, "cross_folds", 2)
            n_train = len({groups[index] for index in parts.train})
            if n_train < inner:
                raise UserInputError(
                    f"{n_train} training questions cannot be cut into {inner} parts; "
                    f"lower {localizer.name}'s cross_folds or add questions"
                )


def _check_question(question: Question) -> None:
    where = f"question {question.question_id!r} ({question.text})"
    labels = {answer.label for answer in question.answers}
    if labels != {0, 1}:
        raise UserInputError(
            f"{where} has answers with the labels {sorted(labels)} only; "
            "it needs at least one aligned (1) and one violating (0)"
        )
    if sum(answer.is_best for answer in question.answers if answer.label == 1) != 1:
        raise UserInputError(f"{where} needs exactly one best answer, among the aligned ones")
    texts = [" ".join(answer.text.split()) for answer in question.answers]
    for answer in question.answers:
        same = [other for other in question.answers if other.text == answer.text]
        if len({other.label for other in same}) > 1:
            raise UserInputError(
                f"{where} has the answer {answer.text!r} as aligned and as violating; "
                "keep one of them"
            )
    unique(f"answer of {where}", texts)
    unique(f"answer id of {where}", [answer.answer_id for answer in question.answers])
