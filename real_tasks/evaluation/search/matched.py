"""The dose of a comparison at equal KL."""

import math
from collections.abc import Sequence

from real_tasks.evaluation.measuring import Evaluator
from real_tasks.evaluation.search.setting import Setting, open_kl
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import OverflowedError

KL_TOLERANCE = 0.01
"""How near, relatively, the dose of a matched comparison comes to the KL asked for."""
LARGEST_ALPHA = 1e4


def alpha_at_kl(
    evaluator: Evaluator,
    spec: SteeringSpec,
    target: float,
    largest: float = math.inf,
    start: float = 1.0,
) -> float | None:
    """Return the alpha at which steering costs ``target`` nats of KL per token on validation text.

    Or on validation prompts, where it is behind a gate and that is more (`setting.open_kl`).

    KL grows about as alpha squared, so sqrt(KL) is searched by the secant within a bracket
    (Illinois' variant of the false position). Infinite if even the ``largest`` alpha that has a
    meaning, or a huge one, does not reach the target; None if steering overflows before it does.
    The spec's own alpha is of no account; the nearer ``start`` is, the fewer measurements it takes.
    """
    root = math.sqrt(target)

    def gap(alpha: float) -> float:
        try:
            dosed = spec.with_alpha(alpha)
            kl = max(evaluator.side_effects("validation", dosed)[1], open_kl(evaluator, dosed))
        except OverflowedError:
            return math.inf
        # Of next to nothing rounding makes less than nothing.
        return math.sqrt(max(kl, 0.0)) - root

    largest = min(largest, LARGEST_ALPHA)
    low, gap_low, high = 0.0, -root, min(start, largest)
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


def guessed(settings: Sequence[Setting], top_k: int | None, target: float) -> float:
    """Return about the alpha at which steering ``top_k`` modules costs ``target``, or a bit more.

    From the setting whose KL is nearest to it, as KL grows about as alpha squared.
    """
    known = [
        (one.alpha, one.counted_kl)
        for one in settings
        if one.top_k == top_k and one.alpha and 0 < one.counted_kl < math.inf
    ]
    if not known:
        return 1.0
    alpha, kl = min(known, key=lambda one: abs(math.log(one[1] / target)))
    return min(1.05 * alpha * math.sqrt(target / kl), 2 * max(alpha for alpha, _ in known))
