"""Evaluation of one way of steering: choose K and alpha on validation questions, then test once.

Every method is tuned on the same grid under the same cap on KL. An alpha is not the same dose for
two methods, so each is also tested at the alpha that costs a given KL.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from real_tasks.evaluation.fluency import PERPLEXITY
from real_tasks.evaluation.measuring import Evaluator, Measurement, Part
from real_tasks.evaluation.search.grid import Grid
from real_tasks.evaluation.search.matched import alpha_at_kl, guessed
from real_tasks.evaluation.search.race import Race
from real_tasks.evaluation.search.setting import Setting, measured_setting
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import OverflowedError
from real_tasks.vocabulary.experiment_config import EvaluationConfig

HALVINGS = 6
"""How often the smallest strength is halved where none can be used: KL falls about 4,000 times."""


@dataclass(frozen=True)
class MethodResult:
    """What came of one method on one fold.

    Attributes:
        chosen: the setting that was best on validation questions.
        fits_cap: whether any setting was under the cap; if none, nothing is steered.
        settings: all points of the grid, and those below it that were tried.
        curve: measurements on validation questions over alpha at the chosen K; after a race at the
            chosen alpha alone, as `settings` has estimates of the others.
        test: the chosen setting on test questions.
        matched: test at the alpha whose validation KL is `matched_kl`; None if out of reach.
            Cap and dose count the KL on prompts too, where a gate may let steering act there.
        spec: the chosen steering spec; None when nothing is steered.
        bounded: whether there is no such alpha since every strength costs less: of an operator
            whose strength ends, or behind a gate that opens on neither neutral text nor prompts.
    """

    chosen: Setting
    fits_cap: bool
    settings: tuple[Setting, ...]
    curve: tuple[tuple[float | None, Measurement], ...]
    test: Measurement
    matched: Measurement | None
    matched_alpha: float | None
    spec: SteeringSpec | None
    bounded: bool = False


@dataclass(frozen=True)
class Choice:
    """What was chosen on validation questions, and its test.

    Attributes:
        settings: all points of the grid, and those below it that were tried.
        chosen: the best of them.
        spec: that steers so.
        test: on test questions.
    """

    settings: tuple[Setting, ...]
    chosen: Setting
    spec: SteeringSpec
    test: Measurement


def choose(
    evaluator: Evaluator,
    candidates: Mapping[int, SteeringSpec],
    config: EvaluationConfig,
    strengths: Sequence[float] = (),
    enough: Callable[[], bool] = lambda: False,
) -> Choice | tuple[Setting, ...]:
    """Choose K and alpha, and test the choice; see `evaluate_method`.

    Where no alpha of the grid can be used, halves of the smallest are tried, up to `HALVINGS`.
    ``enough`` ends a race early: its leader then wins.

    Returns:
        The settings alone where none can be used.
    """
    grid = sorted(strengths or config.alphas)
    settings: tuple[Setting, ...] = ()
    below = ([grid[0] / 2**n] for n in range(1, 1 + HALVINGS))
    for alphas in (grid, *below):
        pairs = [(k, spec.with_alpha(alpha)) for k, spec in candidates.items() for alpha in alphas]
        search = _search(evaluator, pairs, config, enough)
        tested = next(_tested(evaluator, candidates, search.best_first(), config), None)
        settings += search.settings()
        if tested is not None:
            return Choice(settings, *tested)
    return settings


def _search(
    evaluator: Evaluator,
    pairs: Sequence[tuple[int, SteeringSpec]],
    config: EvaluationConfig,
    enough: Callable[[], bool],
) -> Race | Grid:
    if config.search == "race":
        return Race(evaluator, pairs, config.max_kl, enough)
    return Grid(evaluator, pairs, config.max_kl)


def evaluate_method(
    evaluator: Evaluator,
    candidates: Mapping[int, SteeringSpec],
    config: EvaluationConfig,
    strengths: Sequence[float] = (),
    largest: float = math.inf,
) -> MethodResult:
    """Tune over ``candidates`` (a spec for each K) and the grid of alphas, and test the best.

    A setting that overflows is never chosen. Without candidates nothing is steered. The alpha of
    the candidates is of no account. The grid is ``strengths``, or where there are none that of
    ``config``; ``largest`` is the strength up to which the operator has a meaning.
    """
    race = config.search == "race"
    choice = choose(evaluator, candidates, config, strengths)
    if not isinstance(choice, Choice):
        return _unsteered(evaluator, choice, fits_cap=not candidates)
    settings, chosen, spec = choice.settings, choice.chosen, choice.spec
    tried = sorted({one.alpha for one in settings if one.alpha is not None})
    curve = tuple(
        (alpha, found)
        for alpha in ([spec.alpha] if race else tried)
        if (found := _measured(evaluator, "validation", spec.with_alpha(alpha)))
    )
    start = guessed(settings, chosen.top_k, config.matched_kl) if race else 1.0
    alpha = alpha_at_kl(evaluator, spec, config.matched_kl, largest, start)
    bounded = alpha == math.inf
    matched = None
    if alpha is not None and not bounded:
        matched = _measured(evaluator, "test", spec.with_alpha(alpha))
    return MethodResult(
        chosen=chosen,
        fits_cap=True,
        settings=settings,
        curve=curve,
        test=choice.test,
        matched=matched,
        matched_alpha=alpha if matched else None,
        spec=spec,
        bounded=bounded,
    )


def _unsteered(evaluator: Evaluator, settings: tuple[Setting, ...], fits_cap: bool) -> MethodResult:
    """Return the result of a method that steers nothing, as it has nothing to or may not."""
    unsteered = measured_setting(evaluator, None, None, math.inf)
    test = evaluator.measure("test", None)
    return MethodResult(
        chosen=unsteered,
        fits_cap=fits_cap,
        settings=(unsteered, *settings),
        curve=((None, evaluator.measure("validation", None)),),
        test=test,
        matched=test if fits_cap else None,
        matched_alpha=None,
        spec=None,
    )


def _tested(
    evaluator: Evaluator,
    candidates: Mapping[int, SteeringSpec],
    ranked: Iterable[Setting],
    config: EvaluationConfig,
) -> Iterator[tuple[Setting, SteeringSpec, Measurement]]:
    """Yield settings with their tests; what overflows on test questions cannot be used at all.

    Nor can what answers too strangely: neither is known before everything is measured.
    """
    largest, cap = math.inf, config.max_generation_perplexity
    if cap is not None:
        largest = cap * evaluator.measure("validation", None).metrics()[PERPLEXITY]
    for setting in ranked:
        if setting.metrics.get(PERPLEXITY, 0.0) > largest:
            continue
        assert setting.top_k is not None and setting.alpha is not None
        spec = candidates[setting.top_k].with_alpha(setting.alpha)
        test = _measured(evaluator, "test", spec)
        if test is not None:
            yield setting, spec, test


def _measured(evaluator: Evaluator, part: Part, spec: SteeringSpec) -> Measurement | None:
    """Measure everything; None where steering is so strong that it overflows."""
    try:
        return evaluator.measure(part, spec)
    except OverflowedError:
        return None
