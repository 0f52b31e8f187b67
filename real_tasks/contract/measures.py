"""What every measure keeps to, on a model made on the spot and four questions of the demo."""

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
import torch

from real_tasks.contract.base import Contract
from real_tasks.evaluation.judges import JUDGES
from real_tasks.evaluation.measures import MEASURES, Measure, MeasureInput
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.loading import LoadedModel, load_model
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import BehaviourData

QUESTIONS = (4, 0, 2, 5)


@cache
def loaded() -> LoadedModel:
    """Return the embedded model after one step of training."""
    with TemporaryDirectory() as folder:
        EMBEDDED_MODELS.made("demo", {"steps": 1}).build(Path(folder), lambda *_: None)
        return load_model(Path(folder), execution=ExecutionConfig(device="cpu"))


def steering() -> Intervention:
    """Return what changes all that the model says: a random displacement of its first heads."""
    shape = loaded().shape
    width = shape.modules_per_layer("head") * shape.width("head")
    return Intervention.adding(
        {0: 5 * torch.randn(width, generator=torch.Generator().manual_seed(0))}, "all"
    )


class MeasureContract(Contract):
    """Tests of a measure; one of other data overrides the fixture `data`."""

    registry: ClassVar[Registry[Any]] = MEASURES

    @pytest.fixture
    def data(self) -> BehaviourData:
        """Return the questions that are measured, six at least."""
        return BEHAVIOURS.made("demo_truth", {}).load()

    def made(self, name: str, data: BehaviourData, questions: tuple[int, ...]) -> Measure:
        """Return the measure of some questions, with the default judge."""
        config, judge = EvaluationConfig(max_new_tokens=6), JUDGES.made("exact_match", {}, {})
        return MEASURES[name](MeasureInput(loaded(), data, questions, config, judge))

    @pytest.mark.parametrize("steered", [False, True])
    def test_it_gives_its_metrics_for_every_question(
        self, name: str, data: BehaviourData, steered: bool
    ) -> None:
        found = self.made(name, data, QUESTIONS).read(steering() if steered else None)
        entry = MEASURES[name]
        assert set(entry.metrics(data)) <= set(found.per_question)
        assert entry.metrics(data) and set(entry.objective(data)) <= set(entry.metrics(data))
        for values in found.per_question.values():
            assert len(values) == len(QUESTIONS) and all(map(math.isfinite, values))
        n_generated = len(QUESTIONS) if entry.generates else 0
        assert len(found.generations) == len(found.verdicts) == n_generated

    def test_it_can_be_read_again_with_the_same_result(
        self, name: str, data: BehaviourData
    ) -> None:
        measure = self.made(name, data, QUESTIONS)
        first, steered = measure.read(None), measure.read(steering())
        assert measure.read(None) == first
        assert steered != first

    def test_a_question_is_measured_the_same_among_any_others(
        self, name: str, data: BehaviourData
    ) -> None:
        together = self.made(name, data, QUESTIONS).read(None)
        for place, question in enumerate(QUESTIONS):
            alone = self.made(name, data, (question,)).read(None)
            for metric, values in together.per_question.items():
                assert alone.per_question[metric][0] == pytest.approx(values[place], abs=1e-4)
