"""The best setting of a grid by measuring all of it."""

from collections.abc import Iterator, Sequence

from real_tasks.evaluation.measuring import Evaluator
from real_tasks.evaluation.search.setting import Setting, measured_setting, ranking
from real_tasks.steering.spec import SteeringSpec


class Grid:
    """Every setting measured on all neutral texts, and under the cap on all questions."""

    def __init__(
        self, evaluator: Evaluator, settings: Sequence[tuple[int, SteeringSpec]], max_kl: float
    ) -> None:
        """Measure; the arguments are those of `race.Race`."""
        self._objective = evaluator.objective
        self._settings = tuple(measured_setting(evaluator, *one, max_kl) for one in settings)

    def settings(self) -> tuple[Setting, ...]:
        """Return all settings."""
        return self._settings

    def best_first(self) -> Iterator[Setting]:
        """Yield those under the cap, the best first."""
        measured = (one for one in self._settings if one.metrics)
        yield from sorted(measured, key=ranking(self._objective), reverse=True)
