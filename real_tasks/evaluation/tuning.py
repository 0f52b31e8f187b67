"""Evaluation of one way of steering: choose K and alpha on validation questions, then test once.

Every method is tuned on the same grid under the same cap on KL. An alpha is not the same dose for
two methods, so each is also tested at the alpha that costs a given KL.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from real_tasks.evaluation.measuring import Evaluator, Measurement, Part
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import OverflowedError
from real_tasks.vocabulary.experiment_config import EvaluationConfig

KL_TOLERANCE = 0.01
"""How near, relatively, the dose of a matched comparison comes to the KL asked for."""
LARGEST_ALPHA = 1e4


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
    """

    top_k: int | None
    alpha: float | None
    cross_entropy: float
    kl: float
    metrics: Mapping[str, float]
    overflows: bool = False


@dataclass(frozen=True)
class MethodResult:
    """What came of one method on one fold.

    Attributes:
        chosen: the setting that was best on validation questions.
        fits_cap: whether any setting of the grid was under the cap; if none, nothing is steered.
        settings: all points of the grid.
        curve: measurements on validation questions over alpha at the chosen K.
        test: the chosen setting on test questions.
        matched: test at the alpha whose validation KL is `matched_kl`; None if out of reach.
        spec: the chosen steering spec; None when nothing is steered.
        bounded: whether there is no such alpha since every strength costs less: of an operator
            whose strength ends, or behind a gate that neutral text does not open.
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


def evaluate_method(
    evaluator: Evaluator,
    candidates: Mapping[int, SteeringSpec],
    config: EvaluationConfig,
    strengths: Sequence[float] = (),
    largest: float = math.inf,
) -> MethodResult:
    """Tune over ``candidates`` (a spec for each K) and the grid of alphas, and test the best.

    A setting that overflows is never chosen. Without candidates nothing is steered. The alpha of
    the candidates is of no account.

    Args:
        evaluator: measures.
        candidates: by K.
        config: the caps.
        strengths: the grid; that of ``config`` where there are none.
        largest: strength that has a meaning.
    """
    grid = sorted(strengths or config.alphas)
    settings = tuple(
        _setting(evaluator, top_k, spec.with_alpha(alpha), config.max_kl)
        for top_k, spec in candidates.items()
        for alpha in grid
    )
    ranked = sorted((one for one in settings if one.metrics), key=_rank(evaluator), reverse=True)
    tested = next(_tested(evaluator, candidates, ranked), None)
    if tested is None:
        return _unsteered(evaluator, settings, fits_cap=not candidates)
    chosen, spec, test = tested
    curve = tuple(
        (alpha, found)
        for alpha in grid
        if (found := _measured(evaluator, "validation", spec.with_alpha(alpha)))
    )
    alpha = alpha_at_kl(evaluator, spec, config.matched_kl, largest)
    bounded = alpha == math.inf
    matched = None
    if alpha is not None and not bounded:
        matched = _measured(evaluator, "test", spec.with_alpha(alpha))
    return MethodResult(
        chosen=chosen,
        fits_cap=True,
        settings=settings,
        curve=curve,
        test=test,
        matched=matched,
        matched_alpha=alpha if matched else None,
        spec=spec,
        bounded=bounded,
    )


def _unsteered(evaluator: Evaluator, settings: tuple[Setting, ...], fits_cap: bool) -> MethodResult:
    """Return the result of a method that steers nothing, as it has nothing to or may not."""
    unsteered = _setting(evaluator, None, None, math.inf)
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


def _rank(evaluator: Evaluator) -> Callable[[Setting], tuple[float, float]]:
    return lambda setting: (
        math.fsum(setting.metrics[name] for name in evaluator.objective),
        -setting.kl,
    )


def _tested(
    evaluator: Evaluator, candidates: Mapping[int, SteeringSpec], ranked: Sequence[Setting]
) -> Iterator[tuple[Setting, SteeringSpec, Measurement]]:
    """Yield settings with their tests; what overflows on test questions cannot be used at all."""
    for setting in ranked:
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


def alpha_at_kl(
    evaluator: Evaluator, spec: SteeringSpec, target: float, largest: float = math.inf
) -> float | None:
    """Return the alpha at which steering costs ``target`` nats of KL on validation text.

    KL grows about as alpha squared, so sqrt(KL) is searched by the secant within a bracket
    (Illinois' variant of the false position). Infinite if even the ``largest`` alpha, or a huge
    one, does not reach the target; None if steering overflows before it does.
    """
    root = math.sqrt(target)

    def gap(alpha: float) -> float:
        try:
            kl = evaluator.side_effects("validation", spec.with_alpha(alpha))[1]
        except OverflowedError:
            return math.inf
        # Of next to nothing rounding makes less than nothing.
        return math.sqrt(max(kl, 0.0)) - root

    largest = min(largest, LARGEST_ALPHA)
    low, gap_low, high = 0.0, -root, min(1.0, largest)
    while (gap_high := gap(high)) < 0:
        if high >= largest:
            return math.inf
        low, gap_low, high = high, gap_high, min(2 * high, largest)
    tolerance = KL_TOLERANCE * root / 2
    for _ in range(60):
        if math.isinf(gap_high):
            alpha = (low + high) / 2
        else:
            alpha = (low * gap_high - high * gap_low) / (gap_high - gap_low)
        found = gap(alpha)
        if abs(found) <= tolerance:
            return alpha
        if found > 0:
            high, gap_high, gap_low = alpha, found, gap_low / 2
        else:
            low, gap_low, gap_high = alpha, found, gap_high / 2
    return None if math.isinf(gap_high) else alpha


def _setting(
    evaluator: Evaluator, top_k: int | None, spec: SteeringSpec | None, max_kl: float
) -> Setting:
    alpha = spec.alpha if spec else None
    try:
        cross_entropy, kl = evaluator.side_effects("validation", spec)
        metrics = evaluator.measure("validation", spec).metrics() if kl <= max_kl else {}
    except OverflowedError:
        return Setting(top_k, alpha, math.inf, math.inf, {}, overflows=True)
    return Setting(top_k, alpha, cross_entropy, kl, metrics)
