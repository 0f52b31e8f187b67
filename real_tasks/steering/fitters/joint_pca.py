"""Principal components of all layers together (model-native skills, arXiv 2604.17614)."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError


class JointPCAParams(Frozen):
    """Which component is taken, and in what units."""

    component: NonNegativeInt | None = Field(
        None,
        description="its place, the widest is 0; null: the one of the first along which the "
        "answers' means lie farthest apart, in standard deviations",
    )
    components: PositiveInt = Field(10, description="how many null chooses from")
    scaled: bool = Field(
        False, description="whether every module counts the same, however large its activations are"
    )


@FITTERS.register("joint_pca")
class JointPCA(Fitter):
    """Gives every module its piece of one axis through the activations of all of them.

    The axis is a principal component of the means over each text, modules one after another; first
    and last layer are left out where there are more than two, and their pieces are 0. Labels give
    the sign, to the aligned, and choose the component where it is not said; the release tries ten,
    in both directions. A strength of 1 moves by a standard deviation along the joint axis.
    """

    Params = JointPCAParams
    gives = ("direction", "scale")
    reading = "text_mean"
    all_layers = True
    params: JointPCAParams

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:  # noqa: ARG002
        """Return unit vectors and the lengths of the pieces, in standard deviations of the axis.

        Raises:
            UserInputError: there are not as many components.
        """
        rows = _between(data)
        values = data.values[rows].double()
        sizes = torch.ones(len(rows), dtype=torch.float64)
        if self.params.scaled:
            # A module that never varies has no size to be divided by.
            sizes = values.std(dim=1).norm(dim=-1).clamp_min(1e-30)
        texts = rearrange(values / sizes[:, None, None], "module sample d -> sample (module d)")
        scores, axes = self._components(texts.numpy())
        gaps = scores[data.labels == 1].mean(dim=0) - scores[data.labels == 0].mean(dim=0)
        chosen = self.params.component
        if chosen is None:
            chosen = int((gaps / scores.std(dim=0)).abs().argmax())
        by = scores[:, chosen].std(correction=0) * (-1 if gaps[chosen] < 0 else 1)
        pieces = values.new_zeros(len(data.modules), values.shape[-1])
        pieces[rows] = by * axes[chosen].unflatten(0, (len(rows), -1)) * sizes[:, None]
        return {
            "direction": normalize(pieces, dim=-1).to(data.values),
            "scale": pieces.norm(dim=-1).to(data.values),
        }

    def _components(
        self, texts: Float[np.ndarray, "sample width"]
    ) -> tuple[Float[Tensor, "sample component"], Float[Tensor, "component width"]]:
        """Return the scores along the first components, and their unit vectors."""
        # Imported here: it takes a second, and every command reads this file.
        from sklearn.decomposition import PCA

        chosen = self.params.component
        most = min(len(texts) - 1, texts.shape[1])
        if chosen is not None and chosen >= most:
            raise UserInputError(
                f"component {chosen} is asked for, but {len(texts)} answers have {most}, from 0; "
                "ask for a smaller one, or give more questions"
            )
        wanted = self.params.components if chosen is None else chosen + 1
        found = PCA(min(wanted, most), random_state=0)
        scores = found.fit_transform(texts)
        return torch.from_numpy(scores), torch.from_numpy(found.components_)


def _between(data: FitterInput) -> list[int]:
    """Return the modules of layers that are neither first nor last; all, if there are none."""
    layers = [module.layer for module in data.modules]
    ends = {min(layers), max(layers)}
    return [i for i, layer in enumerate(layers) if layer not in ends] or list(range(len(layers)))
