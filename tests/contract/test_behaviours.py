"""What every behaviour keeps to, over the registry: a new one is tested without being named.

A behaviour that needs data of the user's has an entry in `SAMPLES`, which makes a small file.
"""

import json
import string
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from real_tasks.evaluation.measures import MEASURES
from real_tasks.experiment.plug_ins import resolved
from real_tasks.experiment.question_checks import check_behaviour
from real_tasks.experiment.sources import load_behaviour
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.folds import split
from real_tasks.questions.samples import samples_of
from real_tasks.results.rows import sample_rows
from real_tasks.vocabulary.config import Frozen, PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import BehaviourData, Question
from storage.tables.rows import to_table

pytestmark = pytest.mark.parametrize("name", list(BEHAVIOURS))

NUMBERS = range(12)


def truthfulqa_file(folder: Path) -> dict[str, Any]:
    path = folder / "TruthfulQA.csv"
    rows = [f"kind {n % 2},Is {n} odd?,A {n},A {n}; B {n},C {n}; D {n}" for n in NUMBERS]
    header = "Category,Question,Best Answer,Correct Answers,Incorrect Answers"
    path.write_text("\n".join([header, *rows]))
    return {"path": str(path)}


def caa_file(folder: Path) -> dict[str, Any]:
    path = folder / "tea.json"
    records = [
        {
            "question": f"Would you take {n} cups?\n\nChoices:\n (A) Yes, {n}\n (B) No",
            "answer_matching_behavior": f"({'AB'[n % 2]})",
            "answer_not_matching_behavior": f"({'BA'[n % 2]})",
        }
        for n in NUMBERS
    ]
    path.write_text(json.dumps(records))
    return {"path": str(path)}


def conflict_file(folder: Path) -> dict[str, Any]:
    path = folder / "swap.jsonl"
    records = [
        {
            "question": f"who built mill {n}",
            "org_answer": ["Ann"],
            "sub_context": f"Bob built mill {n}.",
            "sub_answer": ["Bob"],
        }
        for n in NUMBERS
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return {"path": str(path)}


def own_file(folder: Path) -> dict[str, Any]:
    path = folder / "own.jsonl"
    records = [
        {"question": f"How is {n}?", "aligned": ["good", "fine"], "violating": ["bad"]}
        for n in NUMBERS
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return {"path": str(path)}


SAMPLES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "truthfulqa": truthfulqa_file,
    "caa": caa_file,
    "knowledge_conflict": conflict_file,
    "jsonl": own_file,
}
"""For every behaviour that needs data: writes a sample of it and returns the parameters."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@cache
def plug_in(name: str, folder: Path) -> PlugIn:
    (folder / name).mkdir()
    params = SAMPLES[name](folder / name) if name in SAMPLES else {}
    return PlugIn(name=name, params=params)


@cache
def _loaded(name: str, folder: Path) -> BehaviourData:
    return load_behaviour(plug_in(name, folder))


@pytest.fixture
def data(name: str, folder: Path) -> BehaviourData:
    try:
        return _loaded(name, folder)
    except UserInputError as error:
        pytest.fail(
            f"the behaviour {name!r} does not load: {error}; if it needs data, add an entry to "
            "SAMPLES in this file that makes a small sample"
        )


@pytest.fixture
def configured(name: str, folder: Path) -> ExperimentConfig:
    return resolved(ExperimentConfig(behaviour=plug_in(name, folder)))


def presentations(data: BehaviourData) -> list[Question]:
    return [way for question in data.questions for way in question.presentations]


def fields(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def test_parameters_are_frozen_have_defaults_and_descriptions(name: str) -> None:
    params = BEHAVIOURS[name].Params
    assert issubclass(params, Frozen)
    assert params() == params.model_validate(params().model_dump(mode="json"))
    assert all(field.description for field in params.model_fields.values())


def test_it_loads_the_same_questions_every_time(
    name: str, folder: Path, data: BehaviourData
) -> None:
    assert load_behaviour(plug_in(name, folder)) == data
    # One behaviour may be several, each with its own file, and then a parameter names it.
    assert data.name == name or (data.name and "name" in BEHAVIOURS[name].Params.model_fields)


def test_it_passes_the_checks_of_the_default_experiment(
    data: BehaviourData, configured: ExperimentConfig
) -> None:
    check_behaviour(data, configured)


def test_every_fold_has_questions_of_both_labels_in_every_part(
    data: BehaviourData, configured: ExperimentConfig
) -> None:
    for fold in range(configured.data.n_folds):
        parts = split(len(data.questions), fold, configured.data)
        for part in (parts.train, parts.validation, parts.test):
            labels = {a.label for index in part for a in data.questions[index].answers}
            assert labels == {0, 1}


def test_its_order_puts_every_category_on_both_sides_of_a_fold(data: BehaviourData) -> None:
    questions = data.questions
    halves = (questions[: len(questions) // 2], questions[len(questions) // 2 :])
    first, second = ({question.category for question in half} for half in halves)
    assert first & second


def test_texts_are_clean_and_ids_are_unique_within_the_behaviour(data: BehaviourData) -> None:
    samples = samples_of(data)
    assert len({sample.answer.answer_id for sample in samples}) == len(samples)
    asked = [question.question_id for question in presentations(data)]
    assert len(set(asked)) == len(asked)
    for sample in samples:
        for text in (sample.question.text, sample.answer.text, sample.question.category):
            assert text and text == text.strip()


def test_alternates_put_the_same_question_otherwise(data: BehaviourData) -> None:
    for question in data.questions:
        shown = [data.prompt_context(way) for way in question.presentations]
        assert len(set(shown)) == len(shown)
        for alternate in question.alternates:
            assert alternate.category == question.category and not alternate.alternates
            labels, same = (
                sorted((a.label, a.is_best) for a in way.answers) for way in (question, alternate)
            )
            assert labels == same


def test_templates_show_the_question_its_context_if_there_is_one_and_last_the_answer(
    data: BehaviourData,
) -> None:
    passage = {"context"} if any(question.context for question in presentations(data)) else set()
    for template in filter(None, (data.template, data.prompt)):
        assert template.endswith("{answer}") and fields(template).count("answer") == 1
        assert set(fields(template)) == {"question", "answer"} | passage
    assert set(fields(data.chat_prompt)) == {"question"} | passage


def test_the_prompt_with_an_answer_begins_with_the_context_and_ends_with_the_answer(
    data: BehaviourData,
) -> None:
    for sample in samples_of(data)[:50]:
        question, answer = sample.question, sample.answer
        for context, full in (
            (data.context(question), data.full_text(question, answer)),
            (data.prompt_context(question), data.prompt_with_answer(question, answer)),
        ):
            assert full.startswith(context) and full.endswith(answer.text)
            assert question.text in context and question.context in context
            assert full[len(context)] == " " and context == context.rstrip()


def test_neutral_texts_are_there_for_validation_and_test_and_are_none_of_its_prompts(
    data: BehaviourData,
) -> None:
    texts = data.neutral_texts
    assert len(texts) >= 2 and all(text.strip() for text in texts)
    assert not set(texts[::2]) & set(texts[1::2])
    asked = {question.text for question in data.questions}
    assert not any(question in text for text in texts for question in asked)


def test_measures_are_known_and_outcomes_have_different_names(data: BehaviourData) -> None:
    assert data.measures and all(measure in MEASURES for measure in data.measures)
    assert len(set(data.outcomes)) == 3


def test_it_survives_being_written_as_json_with_its_source(data: BehaviourData) -> None:
    written = TypeAdapter(BehaviourData)
    assert written.validate_json(written.dump_json(data)) == data
    assert all(isinstance(text, str) and text for text in data.source.values())


def test_its_rows_fit_the_table_of_samples(data: BehaviourData) -> None:
    rows = to_table("samples", sample_rows(data, 2)).to_pylist()
    assert len(rows) == len(samples_of(data))
    assert {row["fold"] for row in rows} == {0, 1}
