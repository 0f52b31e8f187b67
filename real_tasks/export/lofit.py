"""Head lists in the format of LoFiT (arXiv 2406.01563), which fine-tunes chosen heads.

An integer array ``[[layer, head], ...]`` in NumPy's ``.npy``, the best head first; its releases and
REAL's read and write that.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId


def save_heads(modules: Sequence[ModuleId], path: Path) -> None:
    """Write heads, best first, as an array ``[head, (layer, head)]``.

    Raises:
        UserInputError: a module is no head.
    """
    other = [module for module in modules if module.kind != "head"]
    if other:
        raise UserInputError(
            f"LoFiT's list is one of attention heads, found modules of kind {other[0].kind!r}; "
            "export the steering spec instead (--format spec)"
        )
    pairs = np.array([[module.layer, module.head] for module in modules], dtype=np.int64)
    np.save(path, pairs.reshape(-1, 2), allow_pickle=False)
