"""What gates decide by: means over prompts, the gap of two classes, a threshold."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_over(
    values: Float[Tensor, "row position d"], where: Bool[Tensor, "row position"]
) -> Float[Tensor, "row d"]:
    """Return each row's mean over some positions, float32; 0 of none."""
    where = where.to(values.device)[..., None]
    counts = where.sum(dim=1).clamp_min(1)
    return (values.float() * where).sum(dim=1) / counts


def last_of(
    values: Float[Tensor, "row position d"], where: Bool[Tensor, "row position"]
) -> Float[Tensor, "row d"]:
    """Return what each row has at the last of some positions, float32."""
    where = where.to(values.device)
    last = (where * torch.arange(where.shape[1], device=values.device)).argmax(dim=1)
    return values[torch.arange(len(values), device=values.device), last].float()


def class_gap(
    opening: Float[Tensor, "sample d"], closing: Float[Tensor, "sample d"]
) -> Float[Tensor, "d"]:
    """Return the unit vector from the mean of one class to that of the other."""
    return torch.nn.functional.normalize(opening.mean(dim=0) - closing.mean(dim=0), dim=-1)


def best_threshold(
    opening: Float[Tensor, "sample"], closing: Float[Tensor, "sample"]
) -> tuple[Float[Tensor, ""], float]:
    """Return the threshold above which F1 of ``opening`` is largest, and that F1.

    It lies in the middle of the gap between the two samples that it parts; of thresholds that do
    alike, the one with the widest gap.
    """
    values, order = torch.cat([opening, closing]).double().sort()
    is_opening = (order < len(opening)).double()
    gaps = torch.cat([values.new_ones(1), values.diff()])
    # A threshold before place i calls all from i on opening.
    found = is_opening.flip(0).cumsum(0).flip(0)
    called = torch.arange(len(values), 0, -1)
    f1 = 2 * found / (called + len(opening))
    f1[gaps <= 0] = -1  # no threshold lies between equal values
    best = int(max(range(len(values)), key=lambda i: (float(f1[i]), float(gaps[i]))))
    threshold = values[0] - 1 if best == 0 else (values[best - 1] + values[best]) / 2
    return threshold.to(opening), float(f1[best])
