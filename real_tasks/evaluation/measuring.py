"""Measurements of a model, steered or not, on the questions and neutral texts of one fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from real_tasks.config import EvaluationConfig
from real_tasks.evaluation.choices import choice_scores, encode_choices
from real_tasks.evaluation.generation import generate_answers
from real_tasks.evaluation.judges import JUDGES
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.models import LoadedModel
from real_tasks.steering import SteeringSpec
from real_tasks.types import BehaviourData, FoldSplit, ModuleId, Verdict

Part = Literal["validation", "test"]
_Setting = tuple[Part, tuple[ModuleId, ...], float]


@dataclass(frozen=True)
class Measurement:
    """What was measured with one intervention on one part of the questions.

    Attributes:
        questions: indices of the questions.
        per_question: mc0-mc3 and true_share, false_share (0 or 1), in the order of `questions`.
        generations: the generated answer of each question.
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
        return means | {"cross_entropy": self.cross_entropy, "kl": self.kl}


class Evaluator:
    """Measures one method on one fold; not for several threads.

    Prompts are encoded once, and what was measured at a setting is not measured again.
    """

    def __init__(
        self, loaded: LoadedModel, data: BehaviourData, split: FoldSplit, config: EvaluationConfig
    ) -> None:
        """Encode the fold's prompts; even neutral texts serve validation, odd ones the test."""
        judge = JUDGES[config.judge]
        self._judge = judge(judge.Params())
        self._side_effects: dict[_Setting, tuple[float, float]] = {}
        self._measured: dict[_Setting, Measurement] = {}
        self._loaded, self._data, self._config = loaded, data, config
        self._questions = {"validation": split.validation, "test": split.test}
        self._choices = {
            part: encode_choices(loaded, data, questions, config.batch_tokens)
            for part, questions in self._questions.items()
        }
        texts = data.neutral_texts if len(data.neutral_texts) > 1 else data.neutral_texts * 2
        self._neutral = {
            part: encode_neutral(loaded, texts[start::2], config.batch_tokens)
            for start, part in enumerate(self._questions)
        }

    def side_effects(self, part: Part, spec: SteeringSpec | None) -> tuple[float, float]:
        """Return cross-entropy and KL(original || steered) on neutral text, nats per token."""
        key = _setting(part, spec)
        if key not in self._side_effects:
            intervention = spec.intervention() if spec else None
            self._side_effects[key] = side_effects(self._loaded, self._neutral[part], intervention)
        return self._side_effects[key]

    def measure(self, part: Part, spec: SteeringSpec | None) -> Measurement:
        """Measure everything: choices, generations with their verdicts, side effects."""
        key = _setting(part, spec)
        if key not in self._measured:
            self._measured[key] = self._measure(part, spec)
        return self._measured[key]

    def _measure(self, part: Part, spec: SteeringSpec | None) -> Measurement:
        questions = self._questions[part]
        intervention = spec.intervention() if spec else None
        generations = generate_answers(
            self._loaded,
            self._data,
            questions,
            intervention,
            self._config.max_new_tokens,
            self._config.batch_tokens,
        )
        verdicts = [
            self._judge.judge(self._data.questions[index], generation)
            for index, generation in zip(questions, generations, strict=True)
        ]
        shares = {
            f"{verdict}_share": [float(found == verdict) for found in verdicts]
            for verdict in ("true", "false")
        }
        cross_entropy, kl = self.side_effects(part, spec)
        return Measurement(
            questions=questions,
            per_question=choice_scores(self._loaded, self._choices[part], intervention) | shares,
            generations=tuple(generations),
            verdicts=tuple(verdicts),
            cross_entropy=cross_entropy,
            kl=kl,
        )


def _setting(part: Part, spec: SteeringSpec | None) -> _Setting:
    """What tells two specs of one method apart."""
    return (part, spec.modules, spec.alpha) if spec else (part, (), 0.0)
