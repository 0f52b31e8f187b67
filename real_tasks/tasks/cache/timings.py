"""What each shard of a stage took: the rows of the view `stage_timings`."""

import os
import socket
from collections.abc import Mapping
from typing import Any

from prefect.context import TaskRunContext

TASK_RUN = "task_run"
WORKER = "worker"
SECONDS = "seconds"
DEVICE = "device"


def origin() -> dict[str, str | None]:
    """Return, for an artifact's facts, where it is made and by which task run."""
    context = TaskRunContext.get()
    return {
        WORKER: f"{socket.gethostname()}:{os.getpid()}",
        TASK_RUN: str(context.task_run.id) if context else None,
    }


def timing(stage: str, shard: str, facts: Mapping[str, Any], task_run: object) -> dict[str, Any]:
    """Return a row of `stage_timings`, but for its run, of a shard's artifact with its facts.

    An artifact that another task run than ``task_run`` made is from the cache.
    """
    return {
        "stage": stage,
        "shard": shard,
        "seconds": float(facts[SECONDS]),
        "cached": facts.get(TASK_RUN) != str(task_run),
        "worker": facts.get(WORKER),
        "device": facts.get(DEVICE),
    }
