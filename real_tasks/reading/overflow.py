"""Numbers of a model that have left the range of its type."""

import torch
from torch import Tensor

from real_tasks.models.loading import LoadedModel
from real_tasks.vocabulary.errors import OverflowedError, UserInputError


def check_finite(loaded: LoadedModel, values: Tensor, what: str, steered: bool) -> None:
    """Check that no number of a model has left the range of its type.

    Raises:
        OverflowedError: one has, steered; less steering helps.
        UserInputError: one has, unsteered; another type of the weights helps.
    """
    if bool(values.isfinite().all()):
        return
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    if steered:
        raise OverflowedError(
            f"{what} with NaN or infinity: steering this strong overflows {dtype}; steer less (a "
            "smaller alpha), or set model.dtype to bfloat16 if it is float16"
        )
    raise UserInputError(
        f"the unsteered model: {what} with NaN or infinity; {unsteered_mend(loaded)}"
    )


def unsteered_mend(loaded: LoadedModel) -> str:
    """Return what helps where the unsteered model gives NaN or infinity."""
    if loaded.model.dtype == torch.float16:
        return "the model overflows float16: set model.dtype to bfloat16 (or float32)"
    return "a damaged checkpoint: fetch or save it again"
