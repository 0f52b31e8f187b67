"""What every behaviour keeps to."""

import json
import string
from functools import cache
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter

from real_tasks.contract.base import Contract
from real_tasks.evaluation.measures import MEASURES
from real_tasks.experiment.plug_ins import resolved
from real_tasks.experiment.question_checks import check_behaviour
from real_tasks.experiment.sources import load_behaviour
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import samples_of
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import BehaviourData, Question


@cache
def _loaded(name: str, params: str) -> BehaviourData:
    return load_behaviour(PlugIn(name=name, params=json.loads(params)))


def presentations(data: BehaviourData) -> list[Question]:
    """Return every question in all ways in which it is put."""
    return [way for question in data.questions for way in question.presentations]


def fields(template: str) -> list[str]:
    """Return what a template has places for."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


class BehaviourContract(Contract):
    """Tests of a behaviour; one that needs data overrides the fixture `params`."""

    registry: ClassVar[Registry[Any]] = BEHAVIOURS

    @pytest.fixture
    def plug_in(self, name: str, params: dict[str, Any]) -> PlugIn:
        """Return it as a configuration names it."""
        return PlugIn(name=name, params=params)

    @pytest.fixture
    def data(self, plug_in: PlugIn) -> BehaviourData:
        """Return its questions."""
        try:
            return _loaded(plug_in.name, json.dumps(plug_in.params))
        except UserInputError as error:
            pytest.fail(
                f"the behaviour {plug_in.name!r} does not load: {error}; if it needs data, let a "
                "fixture `params` of the test class make a small sample"
            )

    @pytest.fixture
    def configured(self, plug_in: PlugIn) -> ExperimentConfig:
        """Return the default experiment on it."""
        return resolved(ExperimentConfig(behaviour=plug_in))

    def test_it_loads_the_same_questions_every_time(
        self, plug_in: PlugIn, data: BehaviourData
    ) -> None:
        assert load_behaviour(plug_in) == data
        # One behaviour may be several, each with its own file, and then a parameter names it.
        fields = BEHAVIOURS[plug_in.name].Params.model_fields
        assert data.name == plug_in.name or (data.name and "name" in fields)

    def test_it_passes_the_checks_of_the_default_experiment(
        self, data: BehaviourData, configured: ExperimentConfig
    ) -> None:
        check_behaviour(data, configured)

    def test_every_fold_has_questions_of_both_labels_in_every_part(
        self, data: BehaviourData, configured: ExperimentConfig
    ) -> None:
        for fold in range(configured.data.n_folds):
            parts = split(question_groups(data.questions), fold, configured.data)
            for part in (parts.train, parts.validation, parts.test):
                labels = {a.label for index in part for a in data.questions[index].answers}
                assert labels == {0, 1}

    def test_its_order_puts_every_category_on_both_sides_of_a_fold(
        self, data: BehaviourData
    ) -> None:
        questions = data.questions
        halves = (questions[: len(questions) // 2], questions[len(questions) // 2 :])
        first, second = ({question.category for question in half} for half in halves)
        assert first & second

    def test_texts_are_clean_and_ids_are_unique_within_the_behaviour(
        self, data: BehaviourData
    ) -> None:
        samples = samples_of(data)
        assert len({sample.answer.answer_id for sample in samples}) == len(samples)
        asked = [question.question_id for question in presentations(data)]
        assert len(set(asked)) == len(asked)
        for sample in samples:
            for text in (sample.question.text, sample.answer.text, sample.question.category):
                assert text and text == text.strip()

    def test_alternates_put_the_same_question_otherwise(self, data: BehaviourData) -> None:
        for question in data.questions:
            shown = [data.prompt_context(way) for way in question.presentations]
            assert len(set(shown)) == len(shown)
            for alternate in question.alternates:
                assert alternate.category == question.category and not alternate.alternates
                labels, same = (
                    sorted((a.label, a.is_best) for a in way.answers)
                    for way in (question, alternate)
                )
                assert labels == same

    def test_templates_show_the_question_its_context_if_there_is_one_and_last_the_answer(
        self, data: BehaviourData
    ) -> None:
        passage = (
            {"context"} if any(question.context for question in presentations(data)) else set()
        )
        for template in filter(None, (data.template, data.prompt)):
            assert template.endswith("{answer}") and fields(template).count("answer") == 1
            assert set(fields(template)) == {"question", "answer"} | passage
        assert set(fields(data.chat_prompt)) == {"question"} | passage

    def test_the_prompt_with_an_answer_begins_with_the_context_and_ends_with_the_answer(
        self, data: BehaviourData
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
        self, data: BehaviourData
    ) -> None:
        texts = data.neutral_texts
        assert len(texts) >= 2 and all(text.strip() for text in texts)
        assert not set(texts[::2]) & set(texts[1::2])
        asked = {question.text for question in data.questions}
        assert not any(question in text for text in texts for question in asked)

    def test_measures_are_known_and_outcomes_have_different_names(
        self, data: BehaviourData
    ) -> None:
        assert data.measures and all(measure in MEASURES for measure in data.measures)
        assert len(set(data.outcomes)) == 3

    def test_it_survives_being_written_as_json_with_its_source(self, data: BehaviourData) -> None:
        written = TypeAdapter(BehaviourData)
        assert written.validate_json(written.dump_json(data)) == data
        assert all(isinstance(text, str) and text for text in data.source.values())
