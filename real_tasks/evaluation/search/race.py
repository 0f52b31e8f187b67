"""The best setting of a grid for a part of the work: what is surely worse is measured no further.

KL comes first, on a few neutral texts, and rules out what is far over the cap. Then the number of
questions doubles from round to round, the same ones for all settings, as in successive halving
(Jamieson and Talwalkar 2016, arXiv 1502.07943); what is ruled out in a round is no fixed share, but
what paired differences from the leader tell with confidence, as in racing (Maron and Moore 1994).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from real_tasks.evaluation.measuring import Evaluator
from real_tasks.evaluation.portions import FEWEST_LONE_TEXTS, LONE_TEXTS, mean_effects
from real_tasks.evaluation.search.setting import Setting, open_kl
from real_tasks.evaluation.side_effects import SideEffects
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import OverflowedError

KL_LEVEL = 0.95
"""Confidence, one-sided, of a bound on KL from few texts."""
SAFETY = 1.25
"""Factor by which such a bound must miss the cap."""
LEVEL = 0.9
"""Confidence, one-sided, of a bound on what a setting gains over the leader."""
UNSEEN = 0.25
"""Questions, as many as are counted in beside those asked, that make the largest difference."""
MARGIN = 0.5
"""Gain over the leader that may be lost, as a share of such a bound from all questions."""


def kl_bounds(found: Sequence[tuple[SideEffects, int]], n_texts: int) -> tuple[float, float]:
    """Return between which bounds the KL of all texts lies, from that of a few.

    Student's interval of a ratio, KL over tokens, of texts that are drawn without replacement
    (Cochran 1977, Sampling Techniques, section 6.3). ``found`` are the effects on each text that
    was read, with its number of tokens; ``n_texts`` counts all texts, those included.
    """
    n, mean = len(found), mean_effects(found).kl
    tokens = np.array([count for _, count in found], dtype=np.float64)
    residuals = np.array([one.kl - mean for one, _ in found]) * tokens
    error = math.sqrt((residuals**2).sum() / (n - 1) * (1 / n - 1 / n_texts)) / tokens.mean()
    half = float(stdtrit(n - 1, KL_LEVEL)) * error
    return mean - half, mean + half


def still_racing(
    values: Float[np.ndarray, "setting question"], n_all: int, largest: float
) -> list[int]:
    """Return which settings may still be better than the leader, the best mean so far.

    A setting is out once the upper bound of its difference from the leader, as it would be on all
    questions, is less than `MARGIN` times what all questions can tell from nothing. What is rare
    does not show on few questions: to the squares of the differences those of `UNSEEN` are added
    that are as large as any, as Agresti and Coull (1998) add successes and failures.

    Args:
        values: objective of every setting on the questions so far, drawn without replacement.
        n_all: all questions.
        largest: difference that a question may make.
    """
    n, (leader,) = values.shape[1], _leader(values)
    differences = values - values[leader]
    squares = differences.var(axis=1) * n + UNSEEN * largest**2
    spread = float(stdtrit(n - 1, LEVEL)) * np.sqrt(squares / (n - 1 + UNSEEN))
    best_case = differences.mean(axis=1) + spread * math.sqrt(1 / n - 1 / n_all)
    racing = best_case >= MARGIN * spread / math.sqrt(n_all)
    racing[leader] = True
    return np.flatnonzero(racing).tolist()


def _leader(values: Float[np.ndarray, "setting question"]) -> list[int]:
    return [int(values.mean(axis=1).argmax())]


@dataclass
class _Racer:
    """A setting and what is known of it; out if it overflows or is over the cap."""

    top_k: int
    spec: SteeringSpec
    effects: SideEffects = SideEffects(math.inf, math.inf)
    n_texts: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    n_questions: int = 0
    overflows: bool = False
    over_cap: bool = False
    kl_open: float = 0.0

    @property
    def out(self) -> bool:
        return self.overflows or self.over_cap

    def setting(self) -> Setting:
        if self.overflows:
            return Setting.overflowing(self.top_k, self.spec.alpha)
        metrics, n_questions = ({}, 0) if self.over_cap else (self.metrics, self.n_questions)
        found = (self.top_k, self.spec.alpha, *self.effects, metrics)
        return Setting(*found, n_questions=n_questions, n_texts=self.n_texts, kl_open=self.kl_open)


class Race:
    """A race between the settings of a method on validation questions; see the module."""

    def __init__(
        self,
        evaluator: Evaluator,
        settings: Sequence[tuple[int, SteeringSpec]],
        max_kl: float,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Measure KL, on as many neutral texts as it takes to tell it from the cap ``max_kl``.

        ``settings`` are specs with their alpha, by K. ``enough`` is asked after every setting's KL
        and after every round; once it says so, the leader of those that are known wins.
        """
        self._evaluator, self._max_kl, self._enough = evaluator, max_kl, enough
        self._racers = [_Racer(top_k, spec) for top_k, spec in settings]
        self._last: _Racer | None = None
        for n, racer in enumerate(self._racers):
            if enough() and any(not one.out for one in self._racers[:n]):
                del self._racers[n:]
                break
            self._screen(racer)
            self._screen_prompts(racer)

    def settings(self) -> tuple[Setting, ...]:
        """Return what is known of every setting, estimated where it is not measured on all.

        On the same questions or texts a setting is compared with the last winner, of which all are
        known: metrics and cross-entropy by the difference estimator, KL by the ratio estimator
        (Cochran 1977, sections 7.2 and 6.2).
        """
        return tuple(self._estimated(racer) for racer in self._racers)

    def best_first(self) -> Iterator[Setting]:
        """Yield the winner, measured on everything; then that of a race without it, and so on."""
        pool = [racer for racer in self._racers if not racer.out]
        while pool:
            winner = self._winner(pool)
            if winner is not None:
                self._last = winner
                yield winner.setting()
            pool = [racer for racer in pool if not racer.out and racer is not winner]

    def _estimated(self, racer: _Racer) -> Setting:
        found, winner, all_texts = racer.setting(), self._last, self._evaluator.n_texts
        if racer.overflows or winner is None:
            return found
        if found.n_texts < all_texts:
            read = self._evaluator.effects_of_texts("validation", winner.spec, found.n_texts)
            same = mean_effects(read)
            ratio = winner.effects.kl / same.kl if same.kl > 0 else 1.0
            change = winner.effects.cross_entropy - same.cross_entropy
            found = replace(found, kl=found.kl * ratio, cross_entropy=found.cross_entropy + change)
        if 0 < found.n_questions < self._evaluator.n_questions[-1]:
            found = replace(found, metrics=self._compared(racer, winner))
        return found

    def _compared(self, racer: _Racer, winner: _Racer) -> dict[str, float]:
        """Return the racer's metrics as they would be on all questions, within what was seen."""
        n_portions = 1 + self._evaluator.n_questions.index(racer.n_questions)
        ours, theirs = (self._evaluator.values(r.spec, n_portions) for r in (racer, winner))
        metrics = {}
        for name, values in ours.items():
            change = winner.metrics[name] - sum(theirs[name]) / len(values)
            seen = (*values, *theirs[name])
            metrics[name] = min(max(racer.metrics[name] + change, min(seen)), max(seen))
        return metrics

    def _screen(self, racer: _Racer) -> None:
        for n in (FEWEST_LONE_TEXTS, LONE_TEXTS):
            if n >= self._evaluator.n_text_portions or not self._read_texts(racer, n):
                break
            found = self._evaluator.effects_of_texts("validation", racer.spec, n)
            low, high = kl_bounds(found, self._evaluator.n_texts)
            racer.over_cap = low > SAFETY * self._max_kl
            if racer.over_cap or high * SAFETY < self._max_kl:
                return
        self._read_texts(racer, self._evaluator.n_text_portions)
        racer.over_cap = racer.effects.kl > self._max_kl

    def _screen_prompts(self, racer: _Racer) -> None:
        if racer.overflows:
            return
        try:
            racer.kl_open = open_kl(self._evaluator, racer.spec)
        except OverflowedError:
            racer.overflows = True
        racer.over_cap |= racer.kl_open > self._max_kl

    def _read_texts(self, racer: _Racer, n_portions: int) -> bool:
        """Measure side effects on the first portions of texts; False where they overflow."""
        try:
            found = self._evaluator.effects_of_texts("validation", racer.spec, n_portions)
        except OverflowedError:
            racer.overflows = True
            return False
        racer.effects = mean_effects(found)
        whole = n_portions == self._evaluator.n_text_portions
        racer.n_texts = self._evaluator.n_texts if whole else n_portions
        return True

    def _winner(self, pool: Sequence[_Racer]) -> _Racer | None:
        """Return the best of a race between those in the pool; None if it turns out to be out."""
        racing, rounds, largest = list(pool), self._evaluator.n_questions, 0.0
        for n in range(1, len(rounds) + 1):
            last = n == len(rounds) or len(racing) == 1
            values = [self._values(racer, len(rounds) if last else n) for racer in racing]
            racing = [racer for racer in racing if not racer.out]
            if last or not racing:
                break
            known = np.array([row for row in values if row is not None])
            largest = max(largest, float(np.ptp(known, axis=0).max()))
            kept = still_racing(known, rounds[-1], largest)
            racing = [racing[i] for i in (_leader(known) if self._enough() else kept)]
        return self._best(racing)

    def _values(self, racer: _Racer, n_portions: int) -> list[float] | None:
        """Return the objective of each question of the first portions; None if it overflows."""
        try:
            found = self._evaluator.values(racer.spec, n_portions)
        except OverflowedError:
            racer.overflows = True
            return None
        racer.metrics = {name: sum(row) / len(row) for name, row in found.items()}
        racer.n_questions = self._evaluator.n_questions[n_portions - 1]
        return [math.fsum(row) for row in zip(*found.values(), strict=True)]

    def _best(self, racing: Sequence[_Racer]) -> _Racer | None:
        """Return the best of those that have been asked all questions, measured on everything."""
        for racer in racing:
            if self._read_texts(racer, self._evaluator.n_text_portions):
                racer.over_cap = racer.effects.kl > self._max_kl
        racing = [racer for racer in racing if not racer.out]
        if not racing:
            return None
        best = max(racing, key=lambda one: (math.fsum(one.metrics.values()), -one.effects.kl))
        try:
            best.metrics = self._evaluator.measure("validation", best.spec).metrics()
        except OverflowedError:
            best.overflows = True
            return None
        return best
