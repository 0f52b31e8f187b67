from dataclasses import replace

import pytest
import torch

from real_tasks.contract.planted import planted_input
from real_tasks.localizers.real.chunks import chunks_of_modules, map_chunks
from real_tasks.localizers.real.plan import batch_stream, cross_fit_plan, release_plan
from real_tasks.vocabulary.errors import UserInputError

DATA = planted_input(1, relevant=[], n_questions=50, d=2)


def test_every_training_answer_is_scored_once_by_a_fit_that_never_saw_its_question() -> None:
    plan = cross_fit_plan(DATA, 4, seed=0)
    scored = torch.cat(plan.scored)
    assert scored.sort().values.tolist() == DATA.train.nonzero().squeeze(1).tolist()
    for fitted, held_out, priors in zip(plan.autoencoder, plan.scored, plan.priors, strict=True):
        seen = set(DATA.questions[fitted].tolist())
        assert not seen & set(DATA.questions[held_out].tolist())
        assert torch.cat(priors).sort().values.tolist() == fitted.tolist()


def test_validation_questions_are_in_no_fit() -> None:
    plan = cross_fit_plan(DATA, 4, seed=0)
    used = torch.cat([*plan.autoencoder, *plan.scored])
    assert bool(DATA.train[used].all())


def test_each_prior_gets_one_label() -> None:
    for violating, aligned in cross_fit_plan(DATA, 4, seed=0).priors:
        assert set(DATA.labels[violating].tolist()) == {0}
        assert set(DATA.labels[aligned].tolist()) == {1}


def test_the_release_scores_answers_that_its_autoencoder_has_seen() -> None:
    plan = release_plan(DATA, seed=42)
    train = DATA.train.nonzero().squeeze(1).tolist()
    assert plan.autoencoder[0].tolist() == train and not plan.shifted
    fitted = torch.cat(plan.priors[0])
    assert len(plan.scored[0]) == round(0.2 * len(train))
    assert not set(fitted.tolist()) & set(plan.scored[0].tolist())
    assert set(DATA.questions[fitted].tolist()) & set(DATA.questions[plan.scored[0]].tolist())


def test_more_folds_than_questions_are_refused() -> None:
    with pytest.raises(
        UserInputError, match="40 training questions cannot be cut into cross_folds"
    ):
        cross_fit_plan(DATA, 41, seed=0)


def test_a_fit_without_one_of_the_labels_is_refused() -> None:
    labels = torch.zeros_like(DATA.labels)
    labels[:2] = 1
    with pytest.raises(UserInputError, match="0 aligned"):
        cross_fit_plan(replace(DATA, labels=labels), 2, seed=0)


def test_a_stream_passes_through_every_sample_before_it_repeats_one() -> None:
    pools = [torch.arange(10), torch.arange(100, 112)]
    stream = batch_stream(pools, 8, 4, 0, "test")
    assert stream.shape == (8, 2, 2, 4)
    for position, pool in enumerate(pools):
        seen = stream[:, position].flatten()
        for start in range(0, len(seen) - len(pool), len(pool)):
            assert sorted(seen[start : start + len(pool)].tolist()) == pool.tolist()


def test_a_batch_is_no_larger_than_the_smallest_pool() -> None:
    assert batch_stream([torch.arange(5), torch.arange(9)], 2, 32, 0).shape == (2, 2, 1, 5)


def test_chunks_cover_the_modules_in_order_and_leave_no_thread_idle() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        cpu = torch.device("cpu")
        for n_modules, size in ((1, 10), (5, 1), (32, 2 << 20), (7, 1 << 30)):
            chunks = chunks_of_modules(n_modules, size, cpu)
            assert [index for chunk in chunks for index in chunk] == list(range(n_modules))
            assert len(chunks) >= min(2, n_modules)
        assert map_chunks(list, chunks, cpu) == [list(chunk) for chunk in chunks]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
