"""What keeps heads from writing along the direction of the stream that they write to (ThinkEdit).

Source: Sun et al. 2025, arXiv 2503.22048.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.steering.fitters.mean_difference import mean_difference


@FITTERS.register("direct_write")
class DirectWrite(Fitter):
    """Reads ``W_h^T v`` and writes ``-v``, so that ``(I - v v^T) W_h`` is left at a strength of 1.

    v, of length 1, is the difference of the class means of the residual stream between attention
    and feed-forward, over the tokens of answers. Where a norm stands between heads and stream, it
    is times the norm's gain, so that what comes out of the norm has nothing along v.
    """

    gives = ("read", "write")
    access = "weights"
    reading = "answer_mean"
    beside = {"head": "residual_mid"}

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return the tensors of one layer's heads."""
        assert data.model is not None and data.beside is not None, "it asks for both"
        model, v = data.model, mean_difference(data.beside, data.labels)[0]
        before = [normalize(model.gain(module) * v, dim=-1) for module in data.modules]
        pairs = zip(data.modules, before, strict=True)
        reads = [model.weight(module).T @ u for module, u in pairs]
        return {"read": torch.stack(reads), "write": -torch.stack(before)}
