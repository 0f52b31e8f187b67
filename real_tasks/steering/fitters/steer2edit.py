"""Edits of rank one of heads and neurons that write along the behaviour (Steer2Edit).

Source: arXiv 2602.09870.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.steering.fitters.mean_difference import mean_difference
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import ModuleId


class Steer2EditParams(Frozen):
    """The elastic net that turns scores into sizes of edits."""

    rho: float = Field(
        0.18,
        gt=0,
        description="weight of the penalty; the paper's is another one for every model, .1 to .42 "
        "for heads, .3 to .9 for neurons",
    )
    alpha: float = Field(
        0.8,
        ge=0,
        lt=1,
        description="share of the penalty that is sparse: scores up to rho * alpha make no edit; "
        "0 is the ridge, which edits all in proportion to their scores",
    )


@FITTERS.register("steer2edit")
class Steer2Edit(Fitter):
    """Has each module write more along v by as much as its mean writing already lies along it.

    v, of length 1, is the difference of the class means of what the whole attention, or MLP, puts
    out; the score g is the cosine between v and ``W x``, W being the module's columns and x the
    middle of its class means. The edit of ``W`` is ``lambda v k^T``, where k is the unit vector
    along ``W^T v`` and lambda the soft threshold of g. Whatever the sign of g, it pushes what is
    written on average towards v. Means are over the tokens of an answer, then over answers.
    """

    Params: ClassVar[type[Steer2EditParams]] = Steer2EditParams
    gives = ("read", "write")
    access = "weights"
    reading = "answer_mean"
    beside = {"head": "attention", "neuron": "mlp"}
    params: Steer2EditParams

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return the tensors of one layer's modules, which all write along v.

        Those of a module without an edit read 0.
        """
        assert data.model is not None and data.beside is not None, "it asks for both"
        v = mean_difference(data.beside, data.labels)[0]
        means = [data.values[:, data.labels == label].mean(dim=1) for label in (0, 1)]
        x = (means[0] + means[1]) / 2
        first = data.modules[0]
        whole = data.model.weight(ModuleId(self.beside[first.kind], first.layer))
        columns = whole.T.unflatten(0, (-1, data.values.shape[-1]))  # [module, d, d_model]
        columns = columns[[module.head for module in data.modules]]
        written = torch.einsum("mdo,md->mo", columns, x)
        score = cosine_similarity(written, v[None], dim=-1)
        k = normalize(columns @ v, dim=-1)
        rho, alpha = self.params.rho, self.params.alpha
        size = score.sign() * (score.abs() - rho * alpha).clamp(min=0) / (rho * (1 - alpha))
        return {"read": size[:, None] * k, "write": v[None]}
