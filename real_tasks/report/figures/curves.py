"""Curves of effect against KL: means over folds and seeds at equal alpha."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

Row = Mapping[str, Any]


@dataclass(frozen=True)
class EffectCurve:
    """Means of KL and effect at each alpha that every fold and seed of a method has.

    Attributes:
        alpha: in standard deviations along the direction, rising.
        kl: mean KL in nats/token at each alpha.
        effect: mean of the metric at each alpha.
        spread: sample standard deviation of the metric; 0 for a single fold and seed.
    """

    alpha: Float[np.ndarray, "alpha"]
    kl: Float[np.ndarray, "alpha"]
    effect: Float[np.ndarray, "alpha"]
    spread: Float[np.ndarray, "alpha"]


def effect_curve(rows: Sequence[Row], metric: str) -> EffectCurve:
    """Average one method's rows over folds and seeds: both axes, at equal alpha.

    An alpha that a fold or seed lacks is left out: its mean would be over other runs than its
    neighbours' means.

    Raises:
        ValueError: a fold and seed has an alpha twice.
    """
    values: dict[float, dict[tuple[int, int], tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        run = (row["fold"], row["seed"])
        if run in values[row["alpha"]]:
            raise ValueError(
                f"alpha {row['alpha']} of {row['method']!r} is there twice in fold {run[0]}, seed "
                f"{run[1]}; expected the rows of one K"
            )
        values[row["alpha"]][run] = (row["kl"], row[metric])
    runs = {run for at_alpha in values.values() for run in at_alpha}
    alphas = sorted(alpha for alpha, at_alpha in values.items() if len(at_alpha) == len(runs))
    table = np.array([list(values[alpha].values()) for alpha in alphas], dtype=np.float64)
    table = table.reshape(len(alphas), len(runs), 2)
    spread = table[..., 1].std(axis=1, ddof=1) if len(runs) > 1 else np.zeros(len(alphas))
    mean = table.mean(axis=1)
    return EffectCurve(np.array(alphas), mean[:, 0], mean[:, 1], spread)
