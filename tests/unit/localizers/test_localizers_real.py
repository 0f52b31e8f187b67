from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from real_tasks.contract.planted import part_of, planted_input
from real_tasks.localizers import LOCALIZERS
from real_tasks.localizers.real import PUBLISHED, RealLocalizer
from real_tasks.localizers.real.params import Params
from real_tasks.localizers.real.plan import batch_stream
from real_tasks.localizers.real.prior import Priors, prior_weights
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleScore

QUICK = Params(epochs=12, prior_epochs=10, cross_folds=2, bootstrap_samples=50)
FAST_PRIOR = Params(prior_hidden=24, prior_learning_rate=1e-2)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def localize(data: LocalizerInput, seed: int = 0, **changes: object) -> LocalizerResult:
    return RealLocalizer(QUICK.model_copy(update=changes)).localize(data, seed)


def aucs(rows: tuple[ModuleScore, ...]) -> Tensor:
    return torch.tensor([row.score for row in rows])


def test_it_is_registered_with_its_params() -> None:
    assert LOCALIZERS["real"] is RealLocalizer
    assert LOCALIZERS["real"].Params() == Params()


@pytest.fixture(scope="module")
def planted() -> tuple[LocalizerInput, LocalizerResult]:
    data = planted_input(10, relevant=[1, 4, 8], strength=2.5)
    return data, localize(data)


def test_planted_modules_come_first(planted: tuple[LocalizerInput, LocalizerResult]) -> None:
    scores = aucs(planted[1].scores)
    assert sorted(scores.topk(3).indices.tolist()) == [1, 4, 8]
    assert float(scores[[1, 4, 8]].min()) > 0.65
    for row in planted[1].scores:
        assert row.roc_auc == row.score
        assert row.roc_auc_low is not None and row.roc_auc_high is not None
        assert row.roc_auc_low <= row.score <= row.roc_auc_high


def test_evidence_has_the_promised_shapes(
    planted: tuple[LocalizerInput, LocalizerResult],
) -> None:
    data, result = planted
    evidence, n_train = result.evidence, int(data.train.sum())
    unseen = evidence["latent_samples"]
    # Half of the training answers, and all validation answers.
    assert len(unseen) == len(data.labels) - n_train // 2
    assert not bool(data.train[unseen].all()) and bool(data.train[unseen].any())
    assert evidence["sample_scores"].shape == (10, n_train)
    assert evidence["latents"].shape == (10, len(unseen), 16)
    assert evidence["latents"].dtype == torch.float16
    assert evidence["codes"].shape == (10, len(unseen), 8)
    assert evidence["codes"].dtype == torch.uint8
    assert evidence["code_counts"].sum(1).tolist() == [8 * len(unseen)] * 10


def test_a_module_scores_the_same_in_any_shard(
    planted: tuple[LocalizerInput, LocalizerResult],
) -> None:
    data, result = planted
    for shard in ([4], [7, 2, 9]):
        part = localize(part_of(data, shard))
        for position, module in enumerate(shard):
            torch.testing.assert_close(
                part.evidence["sample_scores"][position],
                result.evidence["sample_scores"][module],
                atol=1e-4,
                rtol=0,
            )


def test_threads_do_not_change_the_result(
    planted: tuple[LocalizerInput, LocalizerResult],
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = localize(planted[0])
    finally:
        torch.set_num_threads(before)
    for name, values in planted[1].evidence.items():
        torch.testing.assert_close(again.evidence[name], values, atol=1e-4, rtol=0)


def test_another_seed_is_another_fit(planted: tuple[LocalizerInput, LocalizerResult]) -> None:
    data, result = planted
    other = localize(part_of(data, [4]), seed=1).evidence["sample_scores"][0]
    assert not torch.allclose(other, result.evidence["sample_scores"][4], atol=1e-2)


def test_validation_questions_change_no_score(
    planted: tuple[LocalizerInput, LocalizerResult],
) -> None:
    data = part_of(planted[0], [1])
    values, labels = data.values.clone(), data.labels.clone()
    values[:, ~data.train] = 100.0
    labels[~data.train] = 1
    changed = localize(replace(data, values=values, labels=labels))
    torch.testing.assert_close(
        changed.evidence["sample_scores"][0],
        planted[1].evidence["sample_scores"][1],
        atol=1e-4,
        rtol=0,
    )


def test_shuffled_labels_leave_chance() -> None:
    data = planted_input(20, relevant=range(20), strength=3.0)
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(1))
    rows = localize(replace(data, labels=data.labels[order]), contrastive_weight=0.3).scores
    assert float(aucs(rows).mean()) == pytest.approx(0.5, abs=0.05)


def test_codes_started_from_data_are_used_far_more_than_random_ones() -> None:
    data = planted_input(4, relevant=[])
    small = replace(data, values=0.05 * data.values)
    used = {}
    for start, share in (("normal", 0.0), ("data", 0.05)):
        rows = localize(
            small, standardise=False, codebook_init=start, restart_share=share, codebook_size=32
        ).scores
        used[start] = sum(row.perplexity or 0.0 for row in rows) / len(rows)
    assert used["data"] > 3 * used["normal"]


def test_a_codebook_of_constant_inputs_is_collapsed_and_others_are_not() -> None:
    data = planted_input(3, relevant=[])
    noise = 1e-7 * torch.randn(data.values[1].shape, generator=torch.Generator().manual_seed(0))
    data.values[1] = 3.0 * (1 + noise)
    rows = localize(data).scores
    assert [row.collapsed for row in rows] == [False, True, False]
    assert rows[1].score == pytest.approx(0.5, abs=0.15)


def test_reconstruction_explains_held_out_variance() -> None:
    data = planted_input(2, relevant=[])
    source = torch.Generator().manual_seed(0)
    low_rank = torch.randn(360, 3, generator=source) @ torch.randn(3, 32, generator=source)
    data.values[1] = low_rank + 0.1 * data.values[1]
    rows = localize(data, epochs=30).scores
    losses = [row.reconstruction_loss or 0.0 for row in rows]
    assert losses[1] < 0.5 < losses[0] < 1.2


def ordered_codes(n: int, source: torch.Generator) -> Tensor:
    """Sequences [1, 8, n] that go on from one of 16 codes by steps of 3; a tenth are noise."""
    start = torch.randint(0, 16, (1, 1, n), generator=source)
    codes = (start + 3 * torch.arange(8)[:, None]) % 16
    noise = torch.randint(0, 16, codes.shape, generator=source)
    return torch.where(torch.rand(codes.shape, generator=source) < 0.1, noise, codes)


def fitted_prior(shifted: bool, codes: Tensor, epochs: int) -> Priors:
    source = torch.Generator().manual_seed(0)
    weights = [prior_weights(FAST_PRIOR, source)]
    priors = Priors(weights, FAST_PRIOR, shifted, torch.device("cpu"))
    for batch in batch_stream([torch.arange(codes.shape[2])], epochs, 32, 0).flatten(0, 2):
        priors.step(codes[:, :, batch])
    return priors


def test_a_prior_learns_the_order_of_codes_which_the_marginal_does_not_know() -> None:
    source = torch.Generator().manual_seed(0)
    train, test = ordered_codes(600, source), ordered_codes(200, source)
    loss = -float(fitted_prior(True, train, epochs=10).log_probability(test).mean())
    share = torch.bincount(train.flatten(), minlength=16) / train.numel()
    marginal = -float(share.log()[test].mean())
    assert marginal == pytest.approx(2.77, abs=0.02)
    assert loss < 0.6 * marginal


def test_the_release_prior_is_an_identity_map_and_a_shifted_one_is_not() -> None:
    source = torch.Generator().manual_seed(0)
    train, test = (torch.randint(0, 16, (1, 8, n), generator=source) for n in (600, 200))
    unshifted = -float(fitted_prior(False, train, epochs=8).log_probability(test).mean())
    shifted = -float(fitted_prior(True, train, epochs=8).log_probability(test).mean())
    assert unshifted < 0.05
    assert shifted > 2.7


def test_the_release_protocol_runs_under_its_own_name() -> None:
    data = planted_input(2, relevant=[0])
    params = PUBLISHED.model_copy(update={"epochs": 3, "prior_epochs": 2, "bootstrap_samples": 20})
    result = RealLocalizer(params).localize(data, seed=42)
    assert result.protocol == "release"
    assert result.evidence["sample_scores"].shape == (2, int(data.train.sum()))
    assert len(result.evidence["latent_samples"]) == int((~data.train).sum()) + 58


def test_units_that_do_not_divide_the_latent_are_refused_with_those_that_do() -> None:
    localizer = RealLocalizer(Params(units=6))
    with pytest.raises(UserInputError, match=r"units=6.*16 of modules.*\[1, 2, 4, 8, 16\]"):
        localizer.check(32)
    with pytest.raises(UserInputError, match="must be even"):
        localizer.check(31)
    RealLocalizer(Params(units=8)).check(32)


def test_values_that_are_no_numbers_are_refused() -> None:
    data = planted_input(2, relevant=[])
    data.values[1, 0, 0] = torch.nan
    with pytest.raises(UserInputError, match="1 of 2 modules hold NaN or infinity"):
        localize(data)


def test_training_questions_with_one_label_are_refused() -> None:
    data = planted_input(2, relevant=[])
    with pytest.raises(UserInputError, match="0 aligned and 288 violating"):
        localize(replace(data, labels=torch.where(data.train, 0, data.labels)))


def test_more_codes_than_training_vectors_are_refused() -> None:
    data = planted_input(2, relevant=[], n_questions=10)
    with pytest.raises(UserInputError, match="codebook_size=512 exceeds the 128 code vectors"):
        localize(data, codebook_size=512)
