"""One point of the grid, and the points of a grid from best to worst by measuring all of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from real_tasks.evaluation.measuring import Evaluator
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import OverflowedError


@dataclass(frozen=True)
class Setting:
    """One point of the grid, and what was measured there on validation questions.

    Attributes:
        top_k: number of steered modules; None unsteered.
        alpha: strength; None unsteered.
        cross_entropy: on neutral text, nats per token.
        kl: KL(original || steered) on neutral text, nats per token.
        metrics: of the questions; empty where the KL is over the cap, which rules the point out.
        overflows: whether the steered model's numbers leave the range of their type, which rules
            the point out as well; nothing is known of it then.
        n_questions: validation questions that ``metrics`` are means over.
        n_texts: neutral texts that cross-entropy and KL are means over.
        kl_open: KL on prompts; see `open_kl`.
    """

    top_k: int | None
    alpha: float | None
    cross_entropy: float
    kl: float
    metrics: Mapping[str, float]
    overflows: bool = False
    n_questions: int = 0
    n_texts: int = 0
    kl_open: float = 0.0

    @property
    def counted_kl(self) -> float:
        """The KL that the cap counts: on neutral text, or on prompts behind a gate, if larger."""
        return max(self.kl, self.kl_open)

    @classmethod
    def overflowing(cls, top_k: int | None, alpha: float | None) -> "Setting":
        """Return the setting of which nothing is known but that it overflows."""
        return cls(top_k, alpha, math.inf, math.inf, {}, overflows=True)


def open_kl(evaluator: Evaluator, spec: SteeringSpec | None) -> float:
    """Return KL(original || steered) on validation prompts behind a gate; 0 without one.

    A gate that neutral text does not open makes steering cost nothing there, however strong it is
    where it acts: by neutral text alone, no cap would hold, and no dose be the same as another's.
    """
    return evaluator.kl_on_prompts("validation", spec) if spec and spec.gated else 0.0


def measured_setting(
    evaluator: Evaluator, top_k: int | None, spec: SteeringSpec | None, max_kl: float
) -> Setting:
    """Measure a setting on all neutral texts, and under the cap on all questions."""
    alpha = spec.alpha if spec else None
    try:
        cross_entropy, kl = evaluator.side_effects("validation", spec)
        on_prompts, n = open_kl(evaluator, spec), evaluator.n_texts
        setting = Setting(top_k, alpha, cross_entropy, kl, {}, n_texts=n, kl_open=on_prompts)
        found = evaluator.measure("validation", spec) if setting.counted_kl <= max_kl else None
    except OverflowedError:
        return Setting.overflowing(top_k, alpha)
    if found is None:
        return setting
    return replace(setting, metrics=found.metrics(), n_questions=len(found.questions))


def ranking(objective: Sequence[str]) -> Callable[[Setting], tuple[float, float]]:
    """Return the key by which the best setting is the largest: the objective, then less KL."""
    return lambda one: (math.fsum(one.metrics[name] for name in objective), -one.kl)
