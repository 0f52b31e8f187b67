"""What a bag of words tells of answers to questions that it was not fitted to."""

import pytest

from real_tasks.evaluation.wording import word_aucs, wording_line
from real_tasks.results.rows import text_score_rows
from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import Answer, BehaviourData, FoldSplit, Question

PARTS = FoldSplit(train=tuple(range(12)), validation=(12, 13), test=tuple(range(14, 20)))


def asked(
    aligned: str, violating: str, crossed: bool = False, n_questions: int = 20
) -> BehaviourData:
    """Questions with an answer of each label; crossed: every other one has them the other way."""
    told = [
        (violating, aligned) if crossed and n % 2 else (aligned, violating)
        for n in range(n_questions)
    ]
    return BehaviourData(
        "own",
        tuple(
            Question(
                str(n),
                f"Which way is number {n}?",
                "all",
                tuple(
                    Answer(f"{n}-{i}", f"{text} {n}", 1 - i, not i) for i, text in enumerate(texts)
                ),
            )
            for n, texts in enumerate(told)
        ),
    )


def test_a_word_that_tells_is_found_and_answers_are_counted() -> None:
    assert word_aucs(asked("perhaps left", "left"), PARTS) == {
        "validation": (1.0, 4),
        "test": (1.0, 12),
    }


@pytest.mark.parametrize("data", [asked("left", "right", crossed=True), asked("…", "¿")])
def test_words_that_are_as_often_of_either_label_or_none_at_all_tell_nothing(
    data: BehaviourData,
) -> None:
    found = [auc for auc, _ in word_aucs(data, PARTS).values()]
    assert found == pytest.approx([0.5, 0.5])


def test_held_out_answers_count_for_nothing_in_the_fit() -> None:
    data = asked("left", "right")
    other = asked("right", "left").questions
    held_out = {*PARTS.validation, *PARTS.test}
    mixed = [other[n] if n in held_out else one for n, one in enumerate(data.questions)]
    turned = BehaviourData("own", tuple(mixed))
    assert {auc for auc, _ in word_aucs(turned, PARTS).values()} == {0.0}


def test_every_fold_has_a_row_for_validation_and_test() -> None:
    rows = text_score_rows(asked("yes", "no"), DataConfig(n_folds=2))
    found = [(row["classifier"], row["fold"], row["split"], row["roc_auc"]) for row in rows]
    parts = [(fold, part) for fold in (0, 1) for part in ("validation", "test")]
    assert found == [("bag_of_words", fold, part, 1.0) for fold, part in parts]
    assert sum(row["n_answers"] for row in rows if row["split"] == "test") == 40


def test_a_check_of_data_says_it_in_a_line() -> None:
    assert wording_line(asked("yes", "no")).endswith("held-out AUC of 1.00 (0.5: chance)")
