"""A plane to turn in, one for all modules (Angular and Selective Steering, arXiv 2601.19375)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.steering.fitters.mean_difference import mean_difference
from real_tasks.vocabulary.errors import UserInputError


@FITTERS.register("plane")
class Plane(Fitter):
    """Spanned by one of all modules' mean differences and by how these vary most.

    The first vector is the mean difference that has the largest mean cosine with all of them; the
    second the first principal component of all of them, centred, made orthogonal to the first. Its
    sign, which the release leaves to chance, is that of its largest number.
    """

    gives = ("plane",)
    all_layers = True

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return the two orthonormal vectors, the same for every module, ``[module, 2, d]``.

        Raises:
            UserInputError: there is one module alone.
        """
        if len(data.modules) < 2:
            raise UserInputError(
                f"a plane lies between the directions of several modules; {data.modules[0].label} "
                "is alone; choose a part that every layer has"
            )
        found = mean_difference(data.values.double(), data.labels)
        first = found[(found @ found.mean(dim=0)).argmax()]
        widest = torch.linalg.svd(found - found.mean(dim=0), full_matrices=False).Vh[0]
        second = normalize(widest - (widest @ first) * first, dim=0)
        second = second * second[second.abs().argmax()].sign()
        plane = torch.stack([first, second]).to(data.values)
        return {"plane": plane.repeat(len(data.modules), 1, 1)}
