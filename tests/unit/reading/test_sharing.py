import torch

from real_tasks.reading import shared_rows
from real_tasks.reading.shared_rows import (
    SharedRow,
    common_length,
    filled,
    group_by_beginning,
    may_share,
)
from tests.unit.tiny_models import random_data, tiny_loaded, tiny_qwen2, tiny_tokenizer


def test_common_length_counts_equal_tokens_at_the_beginning() -> None:
    assert common_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_length([1, 2], [1, 2, 3]) == 2
    assert common_length([2], [1]) == common_length([], [1]) == 0


def test_the_answers_of_a_question_form_a_group_and_every_text_is_in_one() -> None:
    data = random_data(20)
    tokenize = tiny_tokenizer()
    texts = [data.full_text(q, a) for q in data.questions for a in q.answers]
    owners = [i for i, q in enumerate(data.questions) for _ in q.answers]
    ids = tokenize(texts)["input_ids"]
    groups = group_by_beginning(ids)
    assert sorted(i for _, members in groups for i in members) == list(range(len(texts)))
    for length, members in groups:
        assert len({owners[i] for i in members}) == 1
        assert len({tuple(ids[i][:length]) for i in members}) == 1
    fed = sum(length + sum(len(ids[i]) - length for i in members) for length, members in groups)
    assert fed < 0.65 * sum(map(len, ids))


def test_texts_with_little_in_common_stay_alone() -> None:
    ids = [[1, 5, *range(10, 20)], [1, 5, *range(20, 30)], [1, *range(6, 14)]]
    assert sorted(group_by_beginning(ids)) == [(9, [2]), (12, [0]), (12, [1])]


def test_rows_stay_under_their_limit(monkeypatch) -> None:
    monkeypatch.setattr(shared_rows, "MAX_SHARED_ROW", 30)
    ids = [[*range(10), i, i, i] for i in range(100, 140)]
    for length, members in group_by_beginning(ids):
        assert length + sum(len(ids[i]) - length for i in members) <= 30


def test_an_end_sees_the_beginning_and_itself_but_no_other_end() -> None:
    row = SharedRow([1, 9])
    assert [row.add([10, 11]), row.add([12])] == [[2, 3], [4]]
    batch = filled(tiny_loaded(), [row, SharedRow([1, 2, 3, 4, 5, 6])], shares=True)
    assert batch.position_ids.tolist()[0] == [0, 1, 2, 3, 2, 0]
    assert batch.beginnings.tolist() == [2, 6]
    mask = batch.decoder_inputs(torch.float32)["attention_mask"]
    seen = [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]
    for position, columns in enumerate(seen):
        assert (mask[0, 0, position] == 0).nonzero().flatten().tolist() == columns
    assert torch.equal(mask[1, 0] == 0, torch.ones(6, 6, dtype=torch.bool).tril())


def test_what_ends_begin_with_in_common_stands_in_a_row_once_and_is_seen_by_both() -> None:
    row = SharedRow([1, 9])
    ends = [row.add([10, 11, 12]), row.add([10, 13, 14], shared=1), row.add([10, 13], shared=2)]
    assert ends == [[2, 3, 4], [2, 5, 6], [2, 5]]
    assert row.tokens == [1, 9, 10, 11, 12, 13, 14]
    (mask,) = filled(tiny_loaded(), [row], shares=True).decoder_inputs(torch.float32)[
        "attention_mask"
    ]
    for end in ends:
        seen = (mask[0, end[-1]] == 0).nonzero().flatten().tolist()
        assert seen == [0, 1, *end]


def test_a_window_that_would_cut_forbids_sharing() -> None:
    assert may_share(tiny_loaded(), 10_000)
    windowed = tiny_loaded()
    windowed.model.config.sliding_window = tiny_qwen2(sliding_window=6).config.sliding_window
    assert may_share(windowed, 6)
    assert not may_share(windowed, 7)


def test_no_window_may_be_written_as_zero() -> None:
    loaded = tiny_loaded()
    loaded.model.config.sliding_window = 0
    assert may_share(loaded, 10_000)


def test_attention_that_takes_no_such_mask_forbids_sharing() -> None:
    loaded = tiny_loaded()
    for name, shares in (("eager", True), ("sdpa", True), ("flash_attention_2", False)):
        loaded.model.config._attn_implementation = name
        assert may_share(loaded, 7) == shares
