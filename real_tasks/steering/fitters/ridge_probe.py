"""A probe whose ridge is tuned on held-out questions (RAPTOR, arXiv 2602.00158)."""

import math
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput, projection_sigma
from real_tasks.steering.probes import (
    ProbeParams,
    Probes,
    Standardised,
    fit_probes,
    fit_standardised,
)
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError

Probability = Annotated[float, Field(gt=0, lt=1)]
Penalty = Annotated[float, Field(gt=0)]


class RidgeProbeParams(Frozen):
    """How the probe is tuned, and which probabilities its target and its threshold are."""

    probability: Probability = Field(
        0.99, description="probability of an aligned answer, by the probe, at the target"
    )
    below: Probability | None = Field(
        None, description="the same at the threshold; null: that of the target; 0.5: the boundary"
    )
    smallest: Penalty = Field(1e-4, description="smallest inverse penalty (C) that is tried")
    largest: Penalty = Field(100.0, description="largest inverse penalty (C) that is tried")
    steps: Annotated[int, Field(ge=1)] = Field(
        7, description="values from the smallest to the largest, evenly spaced as logarithms"
    )
    folds: Annotated[int, Field(ge=2)] = Field(
        5, description="parts of the training questions, each held out once to choose C"
    )


@FITTERS.register("ridge_probe")
class RidgeProbe(Fitter):
    """Points along the weights of a logistic probe; its probabilities become coordinates.

    The probe sees each number in its own standard deviations. Its inverse penalty is the one of the
    smallest log loss on held-out questions, the stronger penalty of two that do alike, and it is
    fitted anew with that to all. Folded back, the log-odds of an activation as it is are
    ``weights . x + bias``, and those of a probability p lie at the coordinate
    ``(logit p - bias) / |weights|`` along the unit direction.
    """

    Params = RidgeProbeParams
    gives = (
        *("direction", "scale", "target", "threshold"),
        *("weights", "bias", "inverse_penalty"),
    )
    params: RidgeProbeParams

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return the tensors; all but ``inverse_penalty`` in activation units or their inverse.

        Raises:
            UserInputError: too few questions to hold some out, or a probe did not converge.
        """
        best = self._inverse_penalties(data)
        weights = torch.zeros_like(data.values[:, 0], dtype=torch.double)
        bias = torch.zeros_like(best)
        for c in best.unique():
            rows = best == c
            probes = fit_standardised(data.values[rows], data.labels, _probe(float(c), 1e-10))
            weights[rows], bias[rows] = probes.weights, probes.bias
        length = weights.norm(dim=-1)
        length[length == 0] = float("inf")  # a module without a direction, nor anything along it
        direction = weights / length[:, None]
        target = self.params.probability
        ends = torch.tensor([target, self.params.below or target], dtype=torch.double).logit()
        target_at, threshold_at = (ends[:, None] - bias) / length
        found = {
            "direction": direction,
            "scale": projection_sigma(data.values.double(), direction),
            "target": target_at,
            "threshold": threshold_at,
            "weights": weights,
            "bias": bias,
            "inverse_penalty": best,
        }
        return {name: tensor.to(data.values) for name, tensor in found.items()}

    def _inverse_penalties(self, data: FitterInput) -> Float[Tensor, "module"]:
        """Return each module's C: that of the smallest log loss on questions held out."""
        first, last = math.log(self.params.smallest), math.log(self.params.largest)
        tried = torch.linspace(first, last, self.params.steps, dtype=torch.double).exp()
        folds = data.questions.unique(return_inverse=True)[1] % self.params.folds
        loss = torch.zeros(len(data.modules), len(tried), dtype=torch.double)
        for fold in range(self.params.folds):
            held_out = folds == fold
            labels, others = data.labels[~held_out], data.labels[held_out]
            self._check(labels)
            seen = Standardised(data.values[:, ~held_out])
            fitted_to = seen.coordinates(data.values[:, ~held_out])
            judged_on = seen.coordinates(data.values[:, held_out])
            probes: Probes | None = None
            for place, c in enumerate(tried.tolist()):
                probes = fit_probes(fitted_to, labels, _probe(c, 1e-6 * c), probes)
                odds = probes.log_odds(judged_on)
                loss[:, place] += (softplus(odds) - others * odds).sum(dim=1)
        best: Tensor = tried[loss.argmin(dim=1)]
        return best

    def _check(self, labels: Int[Tensor, "sample"]) -> None:
        aligned = int(labels.sum())
        if not 0 < aligned < len(labels):
            raise UserInputError(
                f"with a part of the training questions held out, the fitter ridge_probe has "
                f"{aligned} aligned and {len(labels) - aligned} violating answers; expected both: "
                f"give more questions, or more than {self.params.folds} folds"
            )


def _probe(c: float, tolerance: float) -> ProbeParams:
    return ProbeParams(inverse_penalty=c, tolerance=tolerance)
