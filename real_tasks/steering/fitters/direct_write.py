"""What keeps heads from writing along the direction of the stream that they write to (ThinkEdit).

Source: Sun et al. 2025, arXiv 2503.22048.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.steering.fitters.mean_difference import mean_difference


@FITTERS.register("direct_write")
class DirectWrite(Fitter):
    """Reads ``W_h^T v`` and writes ``-v``, so that ``(I - v v^T) W_h`` is left at a strength of 1.

    v, of length 1, is the difference of the class means of the residual stream between attention
    and feed-forward, over the tokens of answers.
    """

    gives = ("read", "write")
    access = "weights"
    reading = "answer_mean"
    beside = {"head": "residual_mid"}

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return the tensors of one layer's heads."""
        assert data.model is not None and data.beside is not None, "it asks for both"
        v = mean_difference(data.beside, data.labels)[0]
        reads = [data.model.weight(module).T @ v for module in data.modules]
        return {"read": torch.stack(reads), "write": -v.repeat(len(reads), 1)}
