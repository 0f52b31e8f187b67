"""Random numbers that depend on what they are for, never on what is computed beside it."""

import hashlib

import torch

from real_tasks.vocabulary.types import ModuleId


def generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded by a hash of ``key``.

    Draws are made on the CPU on every device, so that a result does not depend on the device's
    random number generator.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def module_generator(seed: int, module: ModuleId, fit: int, purpose: str) -> torch.Generator:
    """Return the generator of one fit of one module for one purpose."""
    return generator(seed, module.kind, module.layer, module.head, fit, purpose)
