"""The weights of a logistic probe (ITI's "probe weight direction")."""

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, DirectionFitter, FitterInput
from real_tasks.steering.probes import ProbeParams, fit_standardised

PROBE = ProbeParams(tolerance=1e-10)
"""Fitted so far that a probe's weights do not depend on the modules that are fitted beside it."""


@FITTERS.register("probe")
class ProbeWeights(DirectionFitter):
    """Points along which a logistic probe's log-odds of an aligned answer rise fastest.

    The probe sees each activation in its own standard deviations, so that the penalty is the same
    for all; its weights are mapped back to the activations' units. This is ITI's "probe weight
    direction" (Li et al. 2023, arXiv 2306.03341, section 4), which there is fitted to activations
    as they are.
    """

    def direction(self, data: FitterInput, seed: int) -> Float[Tensor, "module d"]:  # noqa: ARG002
        """Return the unit vectors.

        Raises:
            UserInputError: a probe did not converge.
        """
        weights = fit_standardised(data.values, data.labels, PROBE).weights
        return torch.nn.functional.normalize(weights, dim=-1).to(data.values)
