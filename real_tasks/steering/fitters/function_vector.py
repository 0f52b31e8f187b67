"""Function vectors: the sum of what chosen heads write (Todd et al. 2024, arXiv 2310.15213)."""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.vocabulary.config import Frozen, PositiveInt
from real_tasks.vocabulary.errors import UserInputError


@FITTERS.register("function_vector")
class FunctionVector(Fitter):
    """Sums W_O times the mean activation after good demonstrations, over the best heads.

    Which are the best, and their means, is what `indirect_effect` found. Every site as wide as the
    residual stream gets the one vector. It gives ``direction``, of length 1, and ``scale``, the
    sum's length, in activation units: a strength of 1 adds the sum. A bias of the projection counts
    in no head; of a norm behind it the gain counts, and not what it divides by.
    """

    class Params(Frozen):
        """Parameters of the fitter."""

        heads: PositiveInt = Field(10, description="heads of the largest indirect effects")

    gives = ("direction", "scale")
    access = "weights"
    ranking = ("indirect_effect", "head")

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return the tensors.

        Raises:
            UserInputError: no ranking, or sites of another width than what heads write.
        """
        if data.model is None or not data.ranked:
            raise UserInputError(
                "the fitter function_vector needs the model's weights and the scores of its heads; "
                "expected FitterInput.model and FitterInput.ranked, of indirect_effect"
            )
        means = [
            (score, mean)
            for part in data.ranked
            for score, mean in zip(part.scores, part.evidence["means"], strict=True)
        ]
        best = sorted(means, key=lambda one: (-one[0].score, one[0].module))[: self.params.heads]
        model = data.model
        writes = [model.gain(one.module) * (model.weight(one.module) @ mean) for one, mean in best]
        vector = torch.stack(writes).sum(dim=0)
        if len(vector) != data.values.shape[-1]:
            raise UserInputError(
                f"what heads write is {len(vector)} wide, but {data.modules[0].label} "
                f"{data.values.shape[-1]}; expected a part that is the residual stream, or what is "
                "added to it: layer, residual_in, residual_mid, attention, mlp"
            )
        length = vector.norm()
        rows = len(data.modules)
        return {
            "direction": (vector / length.clamp_min(1e-12)).expand(rows, -1).clone(),
            "scale": length.expand(rows).clone(),
        }
