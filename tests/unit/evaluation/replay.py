"""A grid whose every measurement is known, replayed to a search, and what the search asked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from real_tasks.evaluation.measuring import Evaluator, Measurement, Part
from real_tasks.evaluation.portions import mean_effects, question_portions, text_portions
from real_tasks.evaluation.side_effects import SideEffects
from real_tasks.steering.spec import SteeringSpec

Place = tuple[int, float]
"""K and alpha."""


@dataclass(frozen=True)
class Known:
    """All there is to measure at one place: KL of every text, metrics of every question."""

    kl: Float[np.ndarray, "text"]
    metrics: Mapping[str, Float[np.ndarray, "question"]]


@dataclass(frozen=True)
class PlainSpec:
    """A spec of which only K and alpha count."""

    k: int
    alpha: float = 1.0
    gated: bool = False

    def with_alpha(self, alpha: float) -> "PlainSpec":
        return replace(self, alpha=alpha)


@dataclass
class Replay:
    """Stands in for an Evaluator; counts each question and text that a setting is measured on.

    Between the alphas of the grid the KL of a text goes as a power of alpha.
    """

    grid: Mapping[Place, Known]
    tokens: Float[np.ndarray, "text"]
    objective: tuple[str, ...]
    race: bool
    asked: dict[Place, set[int]] = field(default_factory=dict)
    read: dict[Place, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = next(known for known in self.grid.values() if known.metrics)
        n_questions = len(first.metrics[self.objective[0]])
        self.questions = question_portions(n_questions, self.race)
        self.texts = text_portions(len(self.tokens), self.race)
        self.n_texts, self.n_text_portions = len(self.tokens), len(self.texts)
        self.n_questions = tuple(accumulate(map(len, self.questions)))

    @property
    def work(self) -> tuple[int, float]:
        """Questions and tokens of neutral text, over all settings."""
        tokens = sum(self.tokens[list(texts)].sum() for texts in self.read.values())
        return sum(map(len, self.asked.values())), float(tokens)

    def effects_of_texts(
        self, part: Part, spec: Any, n_portions: int
    ) -> list[tuple[SideEffects, int]]:
        if spec is None:
            return [(SideEffects(2.0, 0.0), 1)]
        found = []
        for portion in self.texts[:n_portions] if part == "validation" else ():
            self.read.setdefault((spec.k, spec.alpha), set()).update(portion)
            texts, tokens = list(portion), self.tokens[list(portion)]
            kl = float((self._kl(spec)[texts] * tokens).sum() / tokens.sum())
            found.append((SideEffects(2.0 + kl, kl), int(tokens.sum())))
        return found

    def side_effects(self, part: Part, spec: Any) -> tuple[float, float]:
        return mean_effects(self.effects_of_texts(part, spec, self.n_text_portions))

    def values(self, spec: Any, n_portions: int) -> dict[str, list[float]]:
        order = [place for portion in self.questions[:n_portions] for place in portion]
        self.asked.setdefault((spec.k, spec.alpha), set()).update(order)
        known = self.grid[spec.k, spec.alpha].metrics
        return {name: known[name][order].tolist() for name in self.objective}

    def measure(self, part: Part, spec: Any) -> Measurement:
        """Test questions are not replayed: nothing is chosen by them."""
        if part == "test" or spec is None:
            return Measurement((), {}, (), (), 2.0, 0.0)
        self.values(spec, len(self.questions))
        known = self.grid[spec.k, spec.alpha].metrics
        effects = self.side_effects(part, spec)
        asked = tuple(range(self.n_questions[-1]))
        return Measurement(asked, {n: v.tolist() for n, v in known.items()}, (), (), *effects)

    def as_evaluator(self) -> Evaluator:
        return cast(Evaluator, self)

    def candidates(self) -> dict[int, SteeringSpec]:
        return {k: cast(SteeringSpec, PlainSpec(k)) for k in dict.fromkeys(k for k, _ in self.grid)}

    def _kl(self, spec: Any) -> Float[np.ndarray, "text"]:
        if (spec.k, spec.alpha) in self.grid:
            return self.grid[spec.k, spec.alpha].kl
        alphas = sorted(alpha for k, alpha in self.grid if k == spec.k)
        near = sorted(alphas, key=lambda alpha: abs(math.log(alpha / spec.alpha)))[:2]
        low, high = (self.grid[spec.k, alpha].kl.clip(1e-12) for alpha in near)
        power = np.log(high / low) / math.log(near[1] / near[0]) if len(near) > 1 else 2.0
        return np.asarray(low * (spec.alpha / near[0]) ** power)
