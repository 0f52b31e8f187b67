"""Logistic probes: linear read-outs of the label from activations, all modules at once.

The localizer `iti` ranks modules by them, and the direction `probe` is their weights.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError

SHORTEST_STEP = 2.0**-30
HESSIAN_BYTES = 256 << 20
"""Modules are fitted in chunks whose Hessians take no more than this."""


class ProbeParams(Frozen):
    """How probes are fitted; the defaults are scikit-learn's, which ITI's release uses."""

    inverse_penalty: Annotated[float, Field(gt=0)] = Field(
        1.0, description="inverse strength (C) of the L2 penalty on the weights"
    )
    max_iterations: Annotated[int, Field(ge=1)] = Field(
        100, description="limit of Newton steps; about 10 suffice"
    )
    tolerance: Annotated[float, Field(gt=0)] = Field(
        1e-6, description="gradient per sample, its largest component, at which a fit stops"
    )


@dataclass(frozen=True)
class Probes:
    """Logistic probes: log-odds of an aligned answer = x @ weights + bias."""

    weights: Float[Tensor, "module d"]
    bias: Float[Tensor, "module"]

    def log_odds(self, values: Float[Tensor, "module sample d"]) -> Float[Tensor, "module sample"]:
        """Return the log-odds of every sample."""
        odds = torch.bmm(values.to(self.weights), self.weights[:, :, None]).squeeze(2)
        return odds + self.bias[:, None]


def fit_probes(
    values: Float[Tensor, "module sample d"],
    labels: Int[Tensor, "sample"],
    params: ProbeParams,
    start: Probes | None = None,
) -> Probes:
    """Fit a probe to every module by Newton's method in float64.

    The objective is scikit-learn's: half the squared norm of the weights, the bias left out, plus C
    times the summed logistic loss. It is strictly convex in the weights, so the result is the same
    wherever one starts.

    Raises:
        UserInputError: a probe did not converge within `max_iterations`.
    """
    chunk = max(1, HESSIAN_BYTES // (8 * (values.shape[2] + 1) ** 2))
    at = values.new_zeros(len(values), values.shape[2] + 1, dtype=torch.double)
    if start is not None:
        at = torch.cat([start.weights, start.bias[:, None]], dim=1)
    parts = zip(values.split(chunk), at.split(chunk), strict=True)
    fitted = torch.cat([_fit_chunk(part, labels, params, first) for part, first in parts])
    return Probes(fitted[:, :-1], fitted[:, -1])


class Standardised:
    """Activations in standard deviations of each number, of the samples it is made from.

    Penalised weights lie in the span of the samples: where these are fewer than the numbers of
    each, the coordinates are those within it, and probes come out the same with less work.
    """

    def __init__(self, values: Float[Tensor, "module sample d"]) -> None:
        """Take mean, standard deviation and span; a number that never changes is left as it is."""
        values = values.double()
        self._mean = values.mean(dim=1, keepdim=True)
        scale = values.std(dim=1, correction=0, keepdim=True)
        self._scale = torch.where(scale > 0, scale, 1.0)
        self._axes: Tensor | None = None
        if values.shape[1] < values.shape[2]:
            self._axes = torch.linalg.qr(self.coordinates(values).mT).Q

    def coordinates(
        self, values: Float[Tensor, "module sample d"]
    ) -> Float[Tensor, "module sample coordinate"]:
        """Return what probes are to see of activations, of other samples too."""
        scaled = (values.double() - self._mean) / self._scale
        return scaled if self._axes is None else scaled @ self._axes

    def folded(self, probes: Probes) -> Probes:
        """Return probes of coordinates as probes of activations as they are."""
        weights = probes.weights[..., None]
        if self._axes is not None:
            weights = self._axes @ weights
        weights = weights.squeeze(2) / self._scale.squeeze(1)
        return Probes(weights, probes.bias - (weights * self._mean.squeeze(1)).sum(dim=1))


def fit_standardised(
    values: Float[Tensor, "module sample d"], labels: Int[Tensor, "sample"], params: ProbeParams
) -> Probes:
    """Fit probes that see each number in its own standard deviations; see `fit_probes`.

    The penalty is then the same for all of them. Weights and bias are for values as they are.
    """
    seen = Standardised(values)
    return seen.folded(fit_probes(seen.coordinates(values), labels, params))


def _fit_chunk(
    values: Tensor, labels: Tensor, params: ProbeParams, start: Tensor
) -> Float[Tensor, "module d1"]:
    inputs = torch.cat([values.double(), values.new_ones(*values.shape[:2], 1).double()], dim=2)
    problem = _LogisticProblem(inputs, labels, params.inverse_penalty)
    found = start
    for _ in range(params.max_iterations):
        gradient, hessian = problem.derivatives(found)
        largest = gradient.abs().amax(dim=1) / len(labels)
        if bool((largest <= params.tolerance).all()):
            return found
        found = problem.descend(found, torch.linalg.solve(hessian, gradient))
    raise UserInputError(
        f"{int((largest > params.tolerance).sum())} of {len(found)} logistic probes did not "
        f"converge in {params.max_iterations} steps (gradient {float(largest.max()):.1e}, expected "
        f"at most {params.tolerance:.1e}); raise max_iterations or lower inverse_penalty"
    )


class _LogisticProblem:
    """The objectives of all modules; the last input is the constant 1 of the bias."""

    def __init__(self, inputs: Tensor, labels: Tensor, inverse_penalty: float) -> None:
        self._inputs, self._c = inputs, inverse_penalty
        self._labels = labels.to(inputs)
        self._penalised = torch.ones_like(inputs[0, 0])
        self._penalised[-1] = 0.0

    def objective(self, at: Float[Tensor, "module d1"]) -> Float[Tensor, "module"]:
        odds = self._odds(at)
        loss = softplus(odds) - self._labels * odds
        return self._c * loss.sum(dim=1) + 0.5 * (self._penalised * at.square()).sum(dim=1)

    def derivatives(self, at: Float[Tensor, "module d1"]) -> tuple[Tensor, Tensor]:
        chance = self._odds(at).sigmoid()
        error = self._c * (chance - self._labels)
        gradient = torch.bmm(error[:, None], self._inputs).squeeze(1) + self._penalised * at
        curvature = self._c * chance * (1 - chance)
        hessian = torch.bmm(self._inputs.mT, curvature[:, :, None] * self._inputs)
        return gradient, hessian + self._penalised.diag()

    def descend(self, at: Tensor, step: Tensor) -> Float[Tensor, "module d1"]:
        """Go along the Newton step, halved per module until its objective does not rise."""
        before = self.objective(at)
        # Rounding may raise the objective a trifle at its minimum.
        limit = before + 1e-12 * before.abs()
        length = torch.ones_like(before)
        while True:
            reached = at - length[:, None] * step
            rising = self.objective(reached) > limit
            if not bool(rising.any()) or float(length.min()) < SHORTEST_STEP:
                return reached
            length = torch.where(rising, length / 2, length)

    def _odds(self, at: Tensor) -> Float[Tensor, "module sample"]:
        return torch.bmm(self._inputs, at[:, :, None]).squeeze(2)
