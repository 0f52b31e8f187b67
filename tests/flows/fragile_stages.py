"""A stage whose process dies on demand, in a module that a worker on a cluster can import."""

import os
import signal
from pathlib import Path
from typing import Any

from real_tasks.tasks.cache.stage import stage
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError


@stage("fragile")
def fragile(out: Path, *, number: int, orders: str, execution: ExecutionConfig) -> dict[str, Any]:
    """Square a number; ``orders`` is a folder of files: ``N`` kills, ``N.wrong`` raises.

    A process that is killed takes the order away first. Every try of N adds a line to ``N.tries``.
    """
    folder = Path(orders)
    with (folder / f"{number}.tries").open("a") as tries:
        tries.write(f"{os.getpid()}\n")
    left = folder / str(number)
    if left.exists() and left.stat().st_size:
        left.write_text(left.read_text()[1:])
        os.kill(os.getpid(), signal.SIGKILL)
    if (folder / f"{number}.wrong").exists():
        raise UserInputError(f"{number} is no number to square; give another")
    (out / "square").write_text(str(number**2))
    return {}
