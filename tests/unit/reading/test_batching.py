import itertools
import random
from collections.abc import Iterator, Sequence

import pytest

from real_tasks.reading.batches import (
    BATCH_COST,
    MAX_WASTE,
    MIN_BATCH_TOKENS,
    check_lengths,
    encode,
    pack,
    pack_tightly,
    pad,
)
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import tiny_loaded


@pytest.mark.parametrize("batch_tokens", [1, 50, 400, 100_000])
def test_packing_uses_every_sequence_once_and_keeps_to_the_limit(batch_tokens: int) -> None:
    draw = random.Random(0)
    lengths = [draw.randint(1, 60) for _ in range(500)]
    batches = pack(lengths, batch_tokens, [()] * 500)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    for batch in batches:
        padded = max(lengths[i] for i in batch) * len(batch)
        assert padded <= batch_tokens or len(batch) == 1


def test_large_batches_hold_little_padding() -> None:
    draw = random.Random(0)
    lengths = [draw.randint(1, 200) for _ in range(2000)]
    for batch in pack(lengths, 16384, [()] * 2000):
        real = sum(lengths[i] for i in batch)
        padded = max(lengths[i] for i in batch) * len(batch)
        assert padded - real <= MAX_WASTE * padded or real <= 2 * MIN_BATCH_TOKENS


def test_sequences_of_two_regimes_are_never_in_one_batch() -> None:
    lengths = [3, 9, 4, 8, 5, 9]
    regimes = [(8 + int(length > 8),) for length in lengths]
    assert pack(lengths, 1000, regimes) == [[0, 2, 4, 3], [1, 5]]


def test_nothing_packs_into_nothing() -> None:
    assert pack([], 100, []) == []


def test_rows_are_filled_up_on_the_side_asked_for_whatever_the_tokenizer_prefers() -> None:
    loaded = tiny_loaded(padding_side="left")
    right = pad(loaded, [[5], [6, 7, 8]], "right")
    assert right.input_ids.tolist() == [[5, 0, 0], [6, 7, 8]]
    assert right.mask.tolist() == [[True, False, False], [True, True, True]]
    left = pad(loaded, [[5], [6, 7, 8]], "left")
    assert left.input_ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert left.mask.tolist() == [[False, False, True], [True, True, True]]


def test_an_end_token_that_the_tokenizer_adds_is_left_out() -> None:
    texts = ["w0 w1", "w2 <eos>"]
    assert encode(tiny_loaded(ends_with_eos=True), texts) == [[1, 8, 9], [1, 10, 2]]
    assert encode(tiny_loaded(), texts) == [[1, 8, 9], [1, 10, 2]]


def test_too_long_texts_are_counted_and_named() -> None:
    loaded = tiny_loaded()
    check_lengths(loaded, [128, 5], ["fits", "short"])
    with pytest.raises(UserInputError, match=r"1 of 2 texts are longer .* 128 .*'long' \(129"):
        check_lengths(loaded, [129, 5], ["long", "short"])
    with pytest.raises(UserInputError, match="1 of 2 texts with 10 new tokens"):
        check_lengths(loaded, [119, 118], ["long", "fits"], new_tokens=10)


def cost(lengths: Sequence[int], batches: Sequence[Sequence[int]], batch_cost: int) -> int:
    return sum(len(batch) * max(lengths[i] for i in batch) + batch_cost for batch in batches)


def all_cuts(order: list[int]) -> Iterator[list[list[int]]]:
    """Every way to cut a list into batches."""
    for flags in itertools.product((False, True), repeat=len(order) - 1):
        batches = [[order[0]]]
        for index, cut in zip(order[1:], flags, strict=True):
            batches.append([index]) if cut else batches[-1].append(index)
        yield batches


@pytest.mark.parametrize("batch_cost", [0, 5, 1000])
@pytest.mark.parametrize("batch_tokens", [1, 30, 10_000])
def test_tight_batches_are_the_cheapest_that_fit(batch_cost: int, batch_tokens: int) -> None:
    draw = random.Random(0)
    lengths = [draw.randint(1, 20) for _ in range(9)]
    regimes = [(int(length > 12),) for length in lengths]
    found = pack_tightly(lengths, batch_tokens, regimes, batch_cost)
    assert sorted(sum(found, [])) == list(range(9))

    def fits(batch: Sequence[int]) -> bool:
        tokens = len(batch) * max(lengths[i] for i in batch)
        alike = len({regimes[i] for i in batch}) == 1
        return alike and (len(batch) == 1 or tokens <= batch_tokens)

    assert all(map(fits, found))
    ways = all_cuts(sorted(range(9), key=lambda i: lengths[i]))
    least = min(cost(lengths, way, batch_cost) for way in ways if all(map(fits, way)))
    assert cost(lengths, found, batch_cost) == least


def test_of_rows_as_those_of_questions_less_than_a_tenth_is_padding() -> None:
    draw = random.Random(0)
    lengths = [20 + int(60 * draw.lognormvariate(0, 0.4)) for _ in range(120)]
    batches = pack_tightly(lengths, 16_384, [()] * len(lengths), BATCH_COST)
    padded = cost(lengths, batches, 0)
    assert 1 - sum(lengths) / padded < 0.1
    # Batches are few all the same: what each costs besides its tokens is little, too.
    assert len(batches) * BATCH_COST < 0.3 * padded


def test_nothing_is_no_batch() -> None:
    assert pack_tightly([], 100, [], BATCH_COST) == []
