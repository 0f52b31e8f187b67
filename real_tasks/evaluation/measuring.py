"""Measurements of a model, steered or not, on the questions and neutral texts of one fold."""

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from real_tasks.evaluation.fluency import PERPLEXITY
from real_tasks.evaluation.judges import JUDGES, Judge
from real_tasks.evaluation.measures import MEASURES, Measure, MeasureInput, Reading
from real_tasks.evaluation.portions import encoded_texts, joined, mean_effects, question_portions
from real_tasks.evaluation.side_effects import (
    EncodedNeutral,
    SideEffects,
    encode_neutral,
    side_effects,
)
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.prompts import prompt_text
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from real_tasks.vocabulary.types import BehaviourData, FoldSplit, ModuleId, Verdict

Part = Literal["validation", "test"]
_Setting = tuple[Part, tuple[ModuleId, ...], float]


@dataclass(frozen=True)
class Measurement:
    """What was measured with one intervention on one part of the questions.

    Attributes:
        questions: indices of the questions.
        per_question: every metric of the measures, in the order of `questions`.
        generations: the generated answer of each question; empty where nothing is generated.
        verdicts: what the judge made of each.
        cross_entropy: on that part's neutral texts, nats per token.
        kl: KL(original || steered) on them, nats per token.
    """

    questions: tuple[int, ...]
    per_question: Mapping[str, Sequence[float]]
    generations: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    cross_entropy: float
    kl: float

    def metrics(self) -> dict[str, float]:
        """Return the means over questions, and the side effects, by the metrics' names."""
        means = {name: sum(values) / len(values) for name, values in self.per_question.items()}
        return means | {
            "cross_entropy": self.cross_entropy,
            "perplexity": math.exp(self.cross_entropy),
            "kl": self.kl,
        }


def measuring_modules(config: EvaluationConfig) -> list[str]:
    """Return the modules of plug-ins that measure: the judge's, the measures' (all if unsaid)."""
    judges = [JUDGES[config.judge.name].__module__] if config.judge.name in JUDGES else []
    return judges + [MEASURES[name].__module__ for name in config.measures or MEASURES]


class Evaluator:
    """Measures one method on one fold; not for several threads.

    Prompts are encoded once, and what was measured at a setting is not measured again. For a race
    validation questions and neutral texts are measured in portions, see `search.portions`.

    Attributes:
        objective: metrics whose sum decides K and alpha.
        n_texts: neutral texts of validation.
        n_text_portions: portions that they are measured in.
        n_questions: validation questions of the first portion, of the first two, ... and all.
        order: indices of the validation questions, in the order in which they are measured.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        data: BehaviourData,
        split: FoldSplit,
        config: EvaluationConfig,
        memory: MutableMapping[str, str] | None = None,
        share_prompts: bool = True,
    ) -> None:
        """Encode the fold's prompts; even neutral texts serve validation, odd ones the test.

        The configuration is complete (see `complete_evaluation`); ``memory`` is that of costly
        judges, see `judges.Judge`. For ``share_prompts`` see `Intervention.shares_prompts`.
        """
        assert config.measures and config.objective, "a configuration without is not complete"
        self._effects: dict[tuple[_Setting, int], SideEffects] = {}
        self._readings: dict[tuple[_Setting, int, str], Reading] = {}
        self._prompts: dict[Part, EncodedNeutral] = {}
        self._open: dict[_Setting, float] = {}
        self._loaded = loaded
        self._questions = {"validation": split.validation, "test": split.test}
        judge = judge_of(config, {} if memory is None else memory)
        self._portions = {
            part: question_portions(len(questions), _raced(config, part))
            for part, questions in self._questions.items()
        }
        self._measures = {
            part: [
                _encoded_measures(
                    MeasureInput(
                        loaded, data, [questions[i] for i in portion], config, judge, share_prompts
                    )
                )
                for portion in self._portions[part]
            ]
            for part, questions in self._questions.items()
        }
        texts = data.neutral_texts if len(data.neutral_texts) > 1 else data.neutral_texts * 2
        self._neutral = {
            part: encoded_texts(loaded, texts[start::2], config.batch_tokens, _raced(config, part))
            for start, part in enumerate(self._questions)
        }
        self.objective = config.objective
        self._data, self._batch_tokens = data, config.batch_tokens
        deciding = [n for n in config.measures if {*MEASURES[n].metrics(data)} & {*self.objective}]
        self._deciding, self._named = tuple(deciding), config.measures
        self.n_texts, self.n_text_portions = len(texts[::2]), len(self._neutral["validation"])
        self.order = tuple(
            split.validation[i] for portion in self._portions["validation"] for i in portion
        )
        self.n_questions = tuple(accumulate(map(len, self._portions["validation"])))

    def side_effects(self, part: Part, spec: SteeringSpec | None) -> tuple[float, float]:
        """Return cross-entropy and KL(original || steered) on neutral text, nats per token."""
        return mean_effects(self.effects_of_texts(part, spec, len(self._neutral[part])))

    def effects_of_texts(
        self, part: Part, spec: SteeringSpec | None, n_portions: int
    ) -> list[tuple[SideEffects, int]]:
        """Return the side effects on each of the first portions of texts, and its tokens."""
        key, encoded = _setting(part, spec), self._neutral[part][:n_portions]
        for portion, texts in enumerate(encoded):
            if (key, portion) not in self._effects:
                intervention = spec.intervention() if spec else None
                self._effects[key, portion] = side_effects(self._loaded, texts, intervention)
        return [(self._effects[key, n], texts.n_tokens) for n, texts in enumerate(encoded)]

    def kl_on_prompts(self, part: Part, spec: SteeringSpec) -> float:
        """Return KL(original || steered) on the prompts themselves, nats per token.

        Side effects on neutral text say little of edits that a gate lets act on prompts alone.
        """
        if part not in self._prompts:
            chosen = [self._data.questions[index] for index in self._questions[part]]
            prompts = [prompt_text(self._loaded, self._data, question) for question in chosen]
            self._prompts[part] = encode_neutral(self._loaded, prompts, self._batch_tokens)
        key = _setting(part, spec)
        if key not in self._open:
            found = side_effects(self._loaded, self._prompts[part], spec.intervention())
            self._open[key] = found.kl
        return self._open[key]

    def values(self, spec: SteeringSpec, n_portions: int) -> dict[str, list[float]]:
        """Return what the objective asks of the first portions of validation questions.

        Every metric, in the order in which questions are measured, the same for all specs.
        """
        found: dict[str, Sequence[float]] = {}
        for name in self._deciding:
            readings = [self._reading("validation", spec, n, name) for n in range(n_portions)]
            found |= joined(readings).per_question
        return {name: list(found[name]) for name in self.objective}

    def measure(self, part: Part, spec: SteeringSpec | None) -> Measurement:
        """Measure everything: choices, generations with their verdicts, side effects."""
        portions = self._portions[part]
        places = [place for portion in portions for place in portion]
        readings = [
            joined([self._reading(part, spec, n, name) for n in range(len(portions))], places)
            for name in self._named
        ]
        cross_entropy, kl = self.side_effects(part, spec)
        said = next((reading for reading in readings if reading.generations), None)
        return Measurement(
            questions=self._questions[part],
            per_question={n: v for reading in readings for n, v in reading.per_question.items()},
            generations=said.generations if said else (),
            verdicts=said.verdicts if said else (),
            cross_entropy=cross_entropy,
            kl=kl,
        )

    def _reading(
        self, part: Part, spec: SteeringSpec | None, portion: int, measure: str
    ) -> Reading:
        key = (_setting(part, spec), portion, measure)
        if key not in self._readings:
            intervention = spec.intervention() if spec else None
            self._readings[key] = self._measures[part][portion][measure].read(intervention)
        return self._readings[key]


def judge_of(config: EvaluationConfig, memory: MutableMapping[str, str]) -> Judge:
    """Return the configured judge."""
    return JUDGES.made(config.judge.name, config.judge.params, memory)


def complete_evaluation(config: EvaluationConfig, data: BehaviourData) -> EvaluationConfig:
    """Return the configuration with its measures and objective named.

    Where it names none, the measures are those that the behaviour names, and the objective, the
    metrics whose sum decides K and alpha, are those that the measures name.

    Raises:
        UserInputError: no or an unknown measure, a metric that no measure of the experiment gives.
    """
    names = config.measures or data.measures
    if not names:
        raise UserInputError(
            f"nothing is measured: neither evaluation.measures nor the behaviour {data.name!r} "
            f"names a measure; choose among {', '.join(MEASURES)}"
        )
    measures = [MEASURES[name] for name in names]
    objective = config.objective or tuple(m for one in measures for m in one.objective(data))
    known = metrics_of(names, data)
    for name in objective:
        if name not in known:
            raise UserInputError(
                f"evaluation.objective names {name!r}, which nothing measures here; measured are "
                f"{', '.join(known)}"
            )
    if config.max_generation_perplexity is not None and PERPLEXITY not in known:
        raise UserInputError(
            f"evaluation.max_generation_perplexity is {config.max_generation_perplexity:g}, but no "
            f"answers are generated: evaluation.measures are {', '.join(names)}; add generation"
        )
    return config.model_copy(update={"measures": names, "objective": objective})


def metrics_of(measures: Sequence[str], data: BehaviourData) -> tuple[str, ...]:
    """Return the metrics that the measures of these names give for the data."""
    return tuple(metric for name in measures for metric in MEASURES[name].metrics(data))


def _setting(part: Part, spec: SteeringSpec | None) -> _Setting:
    """What tells two specs of one method apart."""
    return (part, spec.modules, spec.alpha) if spec else (part, (), 0.0)


def _raced(config: EvaluationConfig, part: str) -> bool:
    return config.search == "race" and part == "validation"


def _encoded_measures(given: MeasureInput) -> dict[str, Measure]:
    return {name: MEASURES[name](given) for name in given.config.measures}
