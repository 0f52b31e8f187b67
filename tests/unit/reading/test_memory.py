import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.batches import pack
from real_tasks.reading.out_of_memory import halving, in_batches, is_out_of_memory
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import random_data, random_intervention, random_texts, tiny_loaded

CPU_ERROR = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting garbage takes a quarter of a second among all that the tests have imported."""
    monkeypatch.setattr("real_tasks.reading.out_of_memory.gc.collect", lambda: 0)


class Device:
    """Runs batches of up to a number of tokens; remembers which were asked for and which ran."""

    def __init__(self, lengths: list[int], room: int, error: Exception | None = None) -> None:
        self.lengths, self.room = lengths, room
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        self.asked: list[int] = []
        self.ran: list[list[int]] = []

    def run(self, rows: list[int]) -> None:
        tokens = max(self.lengths[row] for row in rows) * len(rows)
        self.asked.append(tokens)
        if tokens > self.room:
            raise self.error
        self.ran.append(rows)


@contextmanager
def room_for(loaded: LoadedModel, tokens: int) -> Iterator[list[int]]:
    """Let the decoder run out of memory on inputs of more tokens; yields the sizes that ran."""
    sizes: list[int] = []

    def before(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        size = kwargs["input_ids"].numel()
        if size > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        sizes.append(size)

    handle = loaded.decoder.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.mark.parametrize("room", [10**6, 900, 64, 40])
def test_every_sequence_runs_once_whatever_the_room(room: int) -> None:
    draw = random.Random(0)
    lengths = [draw.randint(1, 40) for _ in range(200)]
    device = Device(lengths, room)
    in_batches(tiny_loaded(), "work", lengths, 2000, device.run, [()] * len(lengths))
    assert sorted(row for rows in device.ran for row in rows) == list(range(200))
    if room >= 2000:
        assert device.ran == pack(lengths, 2000, [()] * len(lengths))


def test_a_batch_is_cut_in_the_middle_and_its_rows_stay_in_order() -> None:
    device = Device([10] * 7, 40)
    halving(tiny_loaded(), "work", device.lengths, device.run)
    assert device.ran == [[0, 1, 2], [3, 4, 5, 6]]
    assert device.asked == [70, 30, 40]


def test_a_batch_that_fits_runs_as_it_is_and_nothing_is_logged(caplog) -> None:
    device = Device([10] * 7, 70)
    halving(tiny_loaded(), "work", device.lengths, device.run)
    assert device.ran == [list(range(7))]
    assert not caplog.records


def test_no_rows_are_no_work() -> None:
    device = Device([], 0)
    halving(tiny_loaded(), "work", [], device.run)
    in_batches(tiny_loaded(), "work", [], 100, device.run, [])
    assert device.asked == []


def test_the_size_that_fits_is_kept_for_later_batches_of_the_same_work_and_of_copies() -> None:
    loaded = tiny_loaded()
    first, later, other = (Device([10] * 8, 20) for _ in range(3))
    halving(loaded, "work", first.lengths, first.run)
    assert first.asked == [80, 40, 20, 20, 20, 20]
    halving(loaded.private_copy(), "work", later.lengths, later.run)
    in_batches(loaded, "work", later.lengths, 80, later.run, [()] * 8)
    assert later.asked == [20] * 8
    halving(loaded, "other work", other.lengths, other.run)
    assert other.asked[0] == 80


def test_the_log_says_what_ran_out_and_what_follows(caplog) -> None:
    device = Device([10] * 4, 20)
    with caplog.at_level(logging.WARNING):
        halving(tiny_loaded(), "choices", device.lengths, device.run)
    assert caplog.messages == [
        "choices: out of memory with a batch of 4 rows of up to 10 tokens on cpu; "
        "going on with batches of at most 20 tokens"
    ]


def test_a_row_that_does_not_fit_alone_is_named_with_what_to_do() -> None:
    lengths = [10, 10, 50]
    with pytest.raises(UserInputError, match=r"extraction: a text of 50 tokens .* even alone"):
        halving(tiny_loaded(), "extraction", lengths, Device(lengths, 20).run)


def test_a_row_longer_than_what_has_fitted_is_tried_alone_all_the_same() -> None:
    loaded = tiny_loaded()
    halving(loaded, "work", [10] * 4, Device([10] * 4, 20).run)
    device = Device([25, 25], 30)
    halving(loaded, "work", device.lengths, device.run)
    assert device.ran == [[0], [1]]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(CPU_ERROR),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_other_devices_ways_to_run_out_of_memory_are_known(error: Exception) -> None:
    assert is_out_of_memory(error)
    device = Device([10] * 4, 20, error)
    halving(tiny_loaded(), "work", device.lengths, device.run)
    assert device.ran == [[0, 1], [2, 3]]


def test_any_other_error_goes_through() -> None:
    for error in (RuntimeError("shapes do not match"), ValueError("out of memory")):
        device = Device([10] * 4, 20, error)
        with pytest.raises(type(error), match=str(error)):
            halving(tiny_loaded(), "work", device.lengths, device.run)
        assert device.asked == [40]


def test_a_real_allocation_that_is_too_large_is_known() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)


@pytest.mark.parametrize("scope", ["all", "generated"])
def test_side_effects_are_the_same_with_little_memory(scope) -> None:
    texts = random_texts(12)
    loaded, small = tiny_loaded(), tiny_loaded()
    iv = random_intervention(loaded, scope, scale=0.7)
    expected = side_effects(loaded, encode_neutral(loaded, texts, 1000), iv)
    with room_for(small, 50) as sizes:
        found = side_effects(small, encode_neutral(small, texts, 1000), iv)
    assert tuple(found) == pytest.approx(tuple(expected), rel=1e-5)
    assert len(sizes) > 4
    encoded = encode_neutral(loaded, texts, 1000)
    with room_for(loaded, 50):
        tight = side_effects(loaded, encoded, iv)
    assert tuple(tight) == pytest.approx(tuple(expected), rel=1e-5)


def test_generated_answers_are_the_same_with_little_memory() -> None:
    data = random_data(9)
    loaded, small = tiny_loaded(), tiny_loaded()
    iv = random_intervention(loaded, "generated")
    asked = range(9)
    expected = generate_answers(loaded, data, asked, iv, 6, 10_000)
    with room_for(small, 40) as sizes:
        assert generate_answers(small, data, asked, iv, 6, 10_000) == expected
    assert max(sizes) <= 40
    assert small.batch_limits["generation"] < 10_000
