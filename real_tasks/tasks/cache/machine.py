"""How tasks share the processor's cores."""

import os

import torch

from real_tasks.vocabulary.config import ExecutionConfig


def workers(execution: ExecutionConfig) -> int:
    """Return how many tasks run at a time, on this machine."""
    return execution.max_workers or os.cpu_count() or 1


def use_threads(execution: ExecutionConfig, *, alone: bool = False) -> None:
    """Give this thread's torch operations their share of the cores; all of them to a task alone.

    More threads than cores make small operations slower several times over.
    """
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores if alone else _share(execution, cores))


def _share(execution: ExecutionConfig, cores: int) -> int:
    # A cluster gives a task the cores that it asked for, on whichever machine it runs.
    if execution.runner != "thread":
        return execution.cpus_per_task
    return max(1, cores // workers(execution))
