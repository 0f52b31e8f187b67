"""Batches that do not fit the device's memory: halved, said in the log, and gone on with.

How the callers use it. Work that packs texts into batches itself says `in_batches`, and gives a
function of the indices of one batch; work on batches that are built already says `halving` for
each, and gives a function of the row numbers of that batch. The function is called once per batch
as long as memory suffices.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch

from real_tasks.models.loading import LoadedModel
from real_tasks.models.rope import Regime
from real_tasks.reading.batches import pack
from real_tasks.vocabulary.errors import UserInputError

Run = Callable[[list[int]], None]
"""Work on some rows. It may be called again with half of them after it has raised, so it keeps its
results only at its end, and keeps those of each row apart or sums them."""

log = logging.getLogger(__name__)

_SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def in_batches(
    loaded: LoadedModel,
    work: str,
    lengths: Sequence[int],
    batch_tokens: int,
    run: Run,
    regimes: Sequence[Regime],
) -> None:
    """Pack sequences into batches and run each, in halves where memory does not suffice.

    Args:
        loaded: the model; keeps what size of a batch has turned out too large for a work.
        work: what is done, for the log and as the key of that size: works differ in what they
            need per token.
        lengths: of the sequences, in tokens, with those to come.
        batch_tokens: most tokens of a batch, padding included; a longer sequence is a batch alone.
        run: is given indices into ``lengths``; over all calls that return, each index once.
        regimes: of the sequences; a batch has one.

    Raises:
        UserInputError: a sequence does not fit even alone.
    """
    limit = min(batch_tokens, loaded.batch_limits.get(work, batch_tokens))
    for indices in pack(lengths, limit, regimes):
        _run_halving(loaded, work, lengths, indices, run)


def halving(loaded: LoadedModel, work: str, lengths: Sequence[int], run: Run) -> None:
    """Run the rows of one batch, in halves where memory does not suffice; see `in_batches`.

    Rows that are filled up already have one length. ``run`` is given row numbers; over all calls
    that return, each number once, in order.

    Raises:
        UserInputError: a row does not fit even alone.
    """
    if lengths:
        _run_halving(loaded, work, lengths, list(range(len(lengths))), run)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device, or the machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator, Apple's and cuBLAS raise a plain RuntimeError.
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def _run_halving(
    loaded: LoadedModel, work: str, lengths: Sequence[int], rows: list[int], run: Run
) -> None:
    longest = max(lengths[row] for row in rows)
    tokens = longest * len(rows)
    limit = loaded.batch_limits.get(work)
    known_too_large = limit is not None and tokens > limit and len(rows) > 1
    if not known_too_large and fits(partial(run, rows)):
        return
    if len(rows) == 1:
        raise UserInputError(
            f"{work}: a text of {longest} tokens does not fit the memory of {loaded.device} even "
            "alone; shorten it or leave it out, or give the model more room: another "
            "execution.device, execution.device_map, or model.dtype bfloat16"
        )
    middle = len(rows) // 2
    if not known_too_large:
        loaded.batch_limits[work] = limit = longest * (len(rows) - middle)
        log.warning(
            "%s: out of memory with a batch of %d rows of up to %d tokens on %s; going on with "
            "batches of at most %d tokens",
            *(work, len(rows), longest, loaded.device, limit),
        )
    _run_halving(loaded, work, lengths, rows[:middle], run)
    _run_halving(loaded, work, lengths, rows[middle:], run)


def fits(work: Callable[[], None]) -> bool:
    """Do some work; say whether memory sufficed, and make room where it did not."""
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Only now, as the error held on to the tensors of the frames it came through.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
    return False
