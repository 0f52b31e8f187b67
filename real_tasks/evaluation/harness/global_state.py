"""What lm-evaluation-harness keeps in globals: random seeds, its log, its progress bars.

It was made to be a program of its own. Here it is one part of a run, so it runs once at a time and
leaves all as it was.
"""

import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from threading import Lock
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)
_one_run = Lock()


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other thread runs the library."""
    with _one_run:
        yield


@contextmanager
def seeds_kept() -> Iterator[None]:
    """Put the global random generators, which the library seeds, back where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class _Heard(logging.Handler):
    """Counts the prompts that the library cuts, and passes its errors on."""

    def __init__(self) -> None:
        super().__init__()
        self.n_cut = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record of the library's log."""
        message = record.getMessage()
        self.n_cut += "runcat" in message
        if record.levelno >= logging.ERROR:
            log.error("lm-evaluation-harness: %s", message)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's log and progress bars from the screen; say what was cut."""
    logger, heard = logging.getLogger("lm_eval"), _Heard()
    before = (logger.handlers, logger.propagate, logger.level)
    logger.handlers, logger.propagate = [heard], False
    logger.setLevel(logging.WARNING)
    bars: Any = import_module("datasets.utils")
    shown = not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    with ExitStack() as stack:
        for name in ("lm_eval.api.model", "lm_eval.api.task", "lm_eval.models.huggingface"):
            stack.enter_context(_without_bars(import_module(name)))
        try:
            yield
        finally:
            logger.handlers, logger.propagate = before[:2]
            logger.setLevel(before[2])
            if shown:
                bars.enable_progress_bars()
    if heard.n_cut:
        log.warning(
            "lm-evaluation-harness cut the beginning of prompts longer than the model's "
            "positions, %d times",
            heard.n_cut,
        )


@contextmanager
def _without_bars(module: Any) -> Iterator[None]:
    shown = module.tqdm
    module.tqdm = lambda *args, **kwargs: shown(*args, **{**kwargs, "disable": True})
    try:
        yield
    finally:
        module.tqdm = shown
