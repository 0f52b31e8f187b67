"""Devices: by name, and of a model that accelerate has spread over several (``device_map``)."""

from typing import Any, cast

import torch
from transformers import PreTrainedModel

from real_tasks.vocabulary.errors import UserInputError


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserInputError: no such name, or this machine has no such device.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if n_cuda else "cpu")
    prefix, _, index = name.partition(":")
    well_formed = name in ("cpu", "cuda") or (prefix == "cuda" and index.isdecimal())
    if not well_formed:
        raise UserInputError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N")
    if prefix == "cuda" and int(index or 0) >= n_cuda:
        raise UserInputError(
            f"device {name!r} is not there: PyTorch sees {n_cuda} CUDA devices; use auto or cpu"
        )
    return torch.device(name)


def device_of_embeddings(model: PreTrainedModel) -> torch.device:
    """Return the device that token ids have to be on."""
    embeddings = model.get_input_embeddings()
    device = embeddings.get_parameter("weight").device
    if device.type == "meta":
        # Their weights are elsewhere until they are needed.
        return torch.device(cast(Any, embeddings)._hf_hook.execution_device)
    return device


def offloaded(model: PreTrainedModel) -> dict[int, Any]:
    """Return, by identity, what accelerate's hooks keep of weights that are not on their device."""
    found: dict[int, Any] = {}
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            weights, tied = getattr(one, "weights_map", None), getattr(one, "tied_params_map", None)
            if weights is not None:
                found[id(weights)] = weights
            if tied is not None:
                # Written to while the model runs, so that each copy needs one of its own.
                found.setdefault(id(tied), {pointer: dict(at) for pointer, at in tied.items()})
    return found
