"""Checks of a localizer's input, made before anything is fitted."""

import torch

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import LocalizerInput, ModuleId


def check_values(data: LocalizerInput) -> None:
    """Check that every activation is a finite number.

    Raises:
        UserInputError: some module holds NaN or infinity; the message names the first.
    """
    finite = torch.isfinite(data.values)
    if bool(finite.all()):
        return
    bad = (~finite).any(dim=2)
    first = int(bad.any(dim=1).nonzero()[0])
    raise UserInputError(
        f"activations of {int(bad.any(dim=1).sum())} of {len(data.modules)} modules hold NaN or "
        f"infinity, first {_name(data.modules[first])} in {int(bad[first].sum())} of "
        f"{bad.shape[1]} samples; expected finite numbers: extract again with model.dtype=float32 "
        "or extraction.dtype=float32"
    )


def check_labels(data: LocalizerInput, part: str, chosen: torch.Tensor) -> None:
    """Check that the chosen samples, called ``part``, have answers of both labels.

    Raises:
        UserInputError: one label is missing.
    """
    labels = data.labels[chosen]
    aligned, total = int((labels == 1).sum()), len(labels)
    if aligned == 0 or aligned == total:
        raise UserInputError(
            f"the {part} questions have {aligned} aligned and {total - aligned} violating answers; "
            "expected both: give questions with answers of both labels, or more questions"
        )


def _name(module: ModuleId) -> str:
    return f"{module.kind} (layer {module.layer}, head {module.head})"
