import json
from dataclasses import replace

import numpy as np
import torch

from real_tasks.questions.folds import split
from real_tasks.questions.samples import (
    localizer_input,
    numbered,
    pairs_of,
    rows_of_questions,
    samples_of,
    with_shuffled_labels,
)
from real_tasks.tasks.stages.references import dataset_json, parsed_dataset
from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import Answer, BehaviourData, FoldSplit, ModuleId, Question
from tests.unit.tiny_models import random_data

DATA = random_data(n_questions=20)
MODULES = tuple(ModuleId("head", 0, head) for head in range(3))


def values_that_name_their_place() -> np.ndarray:
    """``values[sample, module]`` is (sample, module): every vector says where it comes from."""
    n_samples = len(samples_of(DATA))
    sample, module = np.meshgrid(np.arange(n_samples), np.arange(len(MODULES)), indexing="ij")
    return np.stack([sample, module], axis=-1).astype(np.float32)


def test_samples_are_all_answers_in_question_order() -> None:
    found = [(sample.question_index, sample.answer.answer_id) for sample in samples_of(DATA)]
    expected = []
    for index, question in enumerate(DATA.questions):
        for answer in question.answers:
            expected.append((index, answer.answer_id))
    assert found == expected


def test_rows_of_questions_are_those_of_their_answers() -> None:
    samples = samples_of(DATA)
    rows = rows_of_questions(samples, (7, 2))
    assert {samples[row].question_index for row in rows} == {2, 7}
    assert len(rows) == len(DATA.questions[2].answers) + len(DATA.questions[7].answers)
    assert rows == sorted(rows)


def test_a_localizer_never_sees_a_test_question() -> None:
    values = values_that_name_their_place()
    for fold in (0, 1):
        parts = split(range(len(DATA.questions)), fold, DataConfig())
        given = localizer_input(MODULES, values, DATA, parts, torch.device("cpu"))
        assert not set(given.questions.tolist()) & set(parts.test)
        samples = samples_of(DATA)
        seen = {samples[int(row)].question_index for row in given.values[0, :, 0].tolist()}
        assert seen == {*parts.train, *parts.validation}


def test_values_labels_and_questions_stay_together() -> None:
    parts = split(range(len(DATA.questions)), 0, DataConfig())
    given = localizer_input(
        MODULES, values_that_name_their_place(), DATA, parts, torch.device("cpu")
    )
    samples = samples_of(DATA)
    assert given.values.shape == (3, len(given.labels), 2)
    for module in range(3):
        assert set(given.values[module, :, 1].tolist()) == {float(module)}
    for place, row in enumerate(given.values[0, :, 0].tolist()):
        sample = samples[int(row)]
        assert int(given.labels[place]) == sample.answer.label
        assert int(given.questions[place]) == sample.question_index
        assert bool(given.train[place]) == (sample.question_index in parts.train)


def test_a_localizer_is_given_the_pairs_among_what_it_sees() -> None:
    parts = split(range(len(DATA.questions)), 0, DataConfig())
    given = localizer_input(
        MODULES, values_that_name_their_place(), DATA, parts, torch.device("cpu")
    )
    joined = [(place, partner) for place, partner in enumerate(given.pairs) if partner >= 0]
    assert joined
    for place, partner in joined:
        assert given.pairs[partner] == place
        assert int(given.labels[place]) != int(given.labels[partner])
        assert int(given.questions[place]) == int(given.questions[partner])
        assert bool(given.train[place]) == bool(given.train[partner])


def test_values_stored_in_half_precision_are_given_as_float32() -> None:
    parts = split(range(len(DATA.questions)), 0, DataConfig())
    halves = values_that_name_their_place().astype(np.float16)
    given = localizer_input(MODULES, halves, DATA, parts, torch.device("cpu"))
    assert given.values.dtype == torch.float32


def test_shuffled_labels_keep_their_counts_within_every_question() -> None:
    shuffled = with_shuffled_labels(DATA, seed=3)
    for before, after in zip(DATA.questions, shuffled.questions, strict=True):
        assert sum(a.label for a in before.answers) == sum(a.label for a in after.answers)
        assert [a.text for a in before.answers] == [a.text for a in after.answers]
        best = [answer for answer in after.answers if answer.is_best]
        assert len(best) == 1 and best[0].label == 1


def test_shuffling_moves_about_as_many_labels_as_chance_does_and_follows_its_seed() -> None:
    data = replace(DATA, questions=random_data(400).questions)
    shuffled = with_shuffled_labels(data, seed=0)
    assert shuffled == with_shuffled_labels(data, seed=0)
    assert shuffled != with_shuffled_labels(data, seed=1)
    pairs = zip(samples_of(data), samples_of(shuffled), strict=True)
    same = [before.answer.label == after.answer.label for before, after in pairs]
    by_chance = []
    for question in data.questions:
        share = sum(answer.label for answer in question.answers) / len(question.answers)
        by_chance += [share**2 + (1 - share) ** 2] * len(question.answers)
    assert abs(np.mean(same) - np.mean(by_chance)) < 0.05


def behaviour(*questions: str, paired: bool = True) -> BehaviourData:
    """Each question is a text of answers: + aligned, - violating, and the name of a pair."""
    return BehaviourData(
        "own",
        tuple(
            Question(
                str(n),
                f"{n}?",
                "all",
                tuple(
                    Answer(f"{n}-{i}", said, int(said[0] == "+"), pair=said[1:])
                    for i, said in enumerate(said.split())
                ),
            )
            for n, said in enumerate(questions)
        ),
        paired=paired,
    )


def pairs(data: BehaviourData) -> list[int]:
    return list(pairs_of(samples_of(data), data.paired))


def test_answers_pair_up_in_their_order_where_there_are_as_many_of_either_label() -> None:
    assert pairs(behaviour("+ - - +", "+ + -", "- +")) == [1, 0, 3, 2, -1, -1, -1, 8, 7]
    assert pairs(behaviour("+ -", paired=False)) == [-1, -1]


def test_answers_with_a_name_of_a_pair_do_so_among_all_of_that_name() -> None:
    assert pairs(behaviour("+a - -a", "+b -c", "+c -b", paired=False)) == [2, -1, 0, 6, 5, 4, 3]


def test_orders_of_a_question_have_pairs_of_their_own() -> None:
    one = behaviour("+ -").questions[0]
    both = replace(one, alternates=(replace(one, question_id="swapped"),))
    assert pairs(BehaviourData("own", (both,))) == [1, 0, 3, 2]


def test_questions_that_a_pair_joins_have_one_number_for_localizers() -> None:
    data = behaviour("+a -a", "+ -", "+a -a", "+ -")
    parts = FoldSplit(train=(0, 1, 2), validation=(3,), test=())
    given = localizer_input(MODULES, np.zeros((8, 3, 2)), data, parts, torch.device("cpu"))
    assert given.questions.tolist() == [0, 0, 1, 1, 0, 0, 2, 2]


def test_names_are_numbered_in_alphabetical_order_and_none_is_minus_one() -> None:
    assert numbered(["b", "", "a", "b"]) == ((1, -1, 0, 1), ("a", "b"))


def test_data_stored_before_there_were_classes_and_pairs_are_read() -> None:
    answer = {"answer_id": "a", "text": "yes", "label": 1, "is_best": True}
    question = {"question_id": "q", "text": "Hot?", "category": "all", "answers": [answer]}
    data = parsed_dataset(json.dumps({"name": "old", "questions": [question]}))
    assert data.questions[0] == Question("q", "Hot?", "all", (Answer("a", "yes", 1, True),))
    marked = replace(data.questions[0], answers=(Answer("a", "yes", 1, marks=((0, 2),)),))
    assert parsed_dataset(dataset_json(replace(data, questions=(marked,)))).questions == (marked,)
