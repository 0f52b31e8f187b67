"""What every behaviour keeps to, over the registry: a new one is tested without being named."""

from functools import cache

import pytest

from real_tasks.behaviours import BEHAVIOURS
from real_tasks.checks import check_behaviour, load_behaviour, resolved
from real_tasks.config import ExperimentConfig, Frozen, PlugIn
from real_tasks.samples import samples_of
from real_tasks.splits import split
from real_tasks.table_rows import sample_rows
from real_tasks.types import BehaviourData
from storage.rows import to_table

pytestmark = pytest.mark.parametrize("name", list(BEHAVIOURS))


def configured(name: str) -> ExperimentConfig:
    return resolved(ExperimentConfig(behaviour=PlugIn(name=name)))


@cache
def data(name: str) -> BehaviourData:
    return load_behaviour(PlugIn(name=name))


def test_parameters_are_frozen_have_defaults_and_descriptions(name: str) -> None:
    params = BEHAVIOURS[name].Params
    assert issubclass(params, Frozen)
    assert params() == params.model_validate(params().model_dump(mode="json"))
    assert all(field.description for field in params.model_fields.values())


def test_it_loads_the_same_questions_every_time(name: str) -> None:
    assert load_behaviour(PlugIn(name=name)) == data(name)
    assert data(name).name == name


def test_it_passes_the_checks_of_the_default_experiment(name: str) -> None:
    check_behaviour(data(name), configured(name))


def test_every_fold_has_questions_of_both_labels_in_every_part(name: str) -> None:
    config = configured(name).data
    for fold in range(config.n_folds):
        parts = split(len(data(name).questions), fold, config)
        for part in (parts.train, parts.validation, parts.test):
            labels = {a.label for index in part for a in data(name).questions[index].answers}
            assert labels == {0, 1}


def test_its_order_puts_every_category_on_both_sides_of_a_fold(name: str) -> None:
    questions = data(name).questions
    halves = (questions[: len(questions) // 2], questions[len(questions) // 2 :])
    first, second = ({question.category for question in half} for half in halves)
    assert first & second


def test_texts_are_clean_and_ids_are_unique_within_the_behaviour(name: str) -> None:
    samples = samples_of(data(name))
    assert len({sample.answer.answer_id for sample in samples}) == len(samples)
    for sample in samples:
        for text in (sample.question.text, sample.answer.text, sample.question.category):
            assert text and text == text.strip()


def test_the_prompt_with_an_answer_begins_with_the_context_and_ends_with_the_answer(
    name: str,
) -> None:
    for sample in samples_of(data(name))[:50]:
        context = data(name).context(sample.question)
        full = data(name).full_text(sample.question, sample.answer)
        assert full.startswith(context) and full.endswith(sample.answer.text)
        assert sample.question.text in context
        assert full[len(context)] == " " and context == context.rstrip()


def test_neutral_texts_are_there_for_validation_and_test_and_are_none_of_its_prompts(
    name: str,
) -> None:
    texts = data(name).neutral_texts
    assert len(texts) >= 2 and all(text.strip() for text in texts)
    assert not set(texts[::2]) & set(texts[1::2])
    asked = {question.text for question in data(name).questions}
    assert not any(question in text for text in texts for question in asked)


def test_its_rows_fit_the_table_of_samples(name: str) -> None:
    rows = to_table("samples", sample_rows(data(name), 2)).to_pylist()
    assert len(rows) == len(samples_of(data(name)))
    assert {row["fold"] for row in rows} == {0, 1}
