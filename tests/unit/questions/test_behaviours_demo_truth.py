"""The behaviour demo_truth."""

from collections import Counter

import numpy as np
import pytest

from real_tasks.models.embedded.corpus import generate_corpus
from real_tasks.models.embedded.world import generate_world
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.demo_truth import DemoTruth
from real_tasks.vocabulary.types import BehaviourData


@pytest.fixture(scope="module")
def data() -> BehaviourData:
    return DemoTruth(DemoTruth.Params()).load()


def test_it_is_registered_and_loads_the_same_data_each_time(data: BehaviourData) -> None:
    assert BEHAVIOURS["demo_truth"] is DemoTruth
    assert DemoTruth(DemoTruth.Params()).load() == data
    assert DemoTruth(DemoTruth.Params(world_seed=1)).load() != data


def test_there_are_180_distinct_questions_with_unique_ids(data: BehaviourData) -> None:
    assert len({question.question_id for question in data.questions}) == 180
    assert len({question.text for question in data.questions}) == 180
    ids = [answer.answer_id for question in data.questions for answer in question.answers]
    assert len(ids) == len(set(ids))


def test_every_value_has_three_phrasings_that_end_with_the_same_token(data: BehaviourData) -> None:
    for question in data.questions:
        aligned = [answer for answer in question.answers if answer.label == 1]
        violating = [answer for answer in question.answers if answer.label == 0]
        assert len(aligned) == 3
        assert len(violating) in (3, 6, 9)
        assert all(answer.text.endswith(" .") for answer in question.answers)


def test_true_and_false_answers_never_coincide(data: BehaviourData) -> None:
    for question in data.questions:
        assert len({answer.text for answer in question.answers}) == len(question.answers)


def test_exactly_one_aligned_answer_is_the_best(data: BehaviourData) -> None:
    for question in data.questions:
        assert [answer.label for answer in question.answers if answer.is_best] == [1]


def test_labels_agree_with_the_world(data: BehaviourData) -> None:
    facts = {fact.fact_id: fact for fact in generate_world(0).facts}
    for question in data.questions:
        fact = facts[question.question_id]
        assert question.category == fact.domain
        for answer in question.answers:
            assert (fact.truth in answer.text.split()) == bool(answer.label)


def test_domains_are_mixed_over_the_folds(data: BehaviourData) -> None:
    for fold in np.array_split([question.category for question in data.questions], 2):
        counts = Counter(fold.tolist())
        assert len(counts) == 6
        assert min(counts.values()) >= 6


def test_a_prompt_reads_as_in_the_training_documents(data: BehaviourData) -> None:
    documents = generate_corpus(generate_world(0), 8000, seed=0)
    corpus = " ".join(" ".join(document.words) for document in documents)
    prompts = [data.context(question) for question in data.questions]
    assert all(prompt in corpus for prompt in prompts)
    assert all(" ".join(prompt.split()) == prompt for prompt in prompts)


def test_neutral_texts_are_long_enough_and_stops_end_an_answer(data: BehaviourData) -> None:
    assert len(data.neutral_texts) == 64
    assert all(len(text.split()) >= 40 for text in data.neutral_texts)
    assert data.stop == (".", "Q:")
