"""The supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362) and its gradient."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

SMALLEST_NORM = 1e-12


def pair_weights(labels: Int[Tensor, "... batch"]) -> Float[Tensor, "... batch batch"]:
    """Weigh the pairs of a batch: L = -sum over pairs of weight * log softmax(similarity).

    An anchor's positives (same label, itself excluded) share its weight, and the anchors that have
    positives share 1.
    """
    same = (labels[..., :, None] == labels[..., None, :]).float()
    same.diagonal(dim1=-2, dim2=-1).zero_()
    positives = same.sum(-1, keepdim=True)
    anchors = (positives > 0).sum(-2, keepdim=True)
    return same / positives.clamp(min=1) / anchors.clamp(min=1)


def contrastive_gradient(
    latents: Float[Tensor, "row batch latent"],
    weights: Float[Tensor, "fit batch batch"],
    temperature: float,
) -> Float[Tensor, "row batch latent"]:
    """Return the loss's gradient by the latents; rows are [fit * module].

    Similarities are cosines divided by ``temperature``; no anchor is compared with itself.
    """
    norms = latents.norm(dim=2, keepdim=True).clamp_(min=SMALLEST_NORM)
    units = latents / norms
    similarity = torch.bmm(units, units.mT).div_(temperature)
    similarity.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    share = similarity.softmax(2).view(len(weights), -1, *weights.shape[1:])
    slope = share.mul_(weights.sum(2, keepdim=True)[:, None]).sub_(weights[:, None]).flatten(0, 1)
    grad = torch.bmm(slope + slope.mT, units).div_(temperature)
    along = (grad * units).sum(2, keepdim=True)
    return grad.addcmul_(along, units, value=-1).div_(norms)
