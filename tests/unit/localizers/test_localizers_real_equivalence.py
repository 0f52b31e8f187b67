"""The batched program computes what a plain loop over modules computes."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from real_tasks.contract.planted import planted_input
from real_tasks.localizers.real.contrastive import contrastive_gradient, pair_weights
from real_tasks.localizers.real.fitting import ShardProgram
from real_tasks.localizers.real.params import PUBLISHED, Params
from real_tasks.localizers.real.plan import FitPlan, batch_stream, cross_fit_plan
from real_tasks.localizers.real.prior import Priors, prior_weights
from real_tasks.localizers.real.vqae import Autoencoders, vqae_start
from real_tasks.localizers.seeding import module_generator
from real_tasks.vocabulary.types import LocalizerInput
from tests.benchmarks import plain_loop

SEED, N_MODULES, N_FOLDS = 7, 3, 2
SMALL = Params(epochs=4, prior_epochs=4, restart_share=0.3, contrastive_weight=0.1)
PUBLISHED_SHORT = PUBLISHED.model_copy(update={"epochs": 3, "prior_epochs": 3})


@dataclass
class Batched:
    program: ShardProgram
    plan: FitPlan
    autoencoders: Autoencoders
    priors: Priors
    scores: Tensor


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[SMALL, PUBLISHED_SHORT], ids=["defaults", "published"])
def params(request: pytest.FixtureRequest) -> Params:
    chosen: Params = request.param
    return chosen


@pytest.fixture(scope="module")
def data() -> LocalizerInput:
    return planted_input(N_MODULES, relevant=[1], n_questions=60)


@pytest.fixture(scope="module")
def batched(data: LocalizerInput, params: Params) -> Batched:
    plan = cross_fit_plan(data, N_FOLDS, SEED)
    with torch.no_grad():
        program = ShardProgram(data.values, data.modules, plan, params, SEED)
        autoencoders = program._train_autoencoders(data.labels)
        codes = program._encode(autoencoders)[0]
        priors = program._train_priors(codes)
        return Batched(program, plan, autoencoders, priors, program._score(priors, codes))


def plain(
    data: LocalizerInput, params: Params, batched: Batched, fit: int, module: int
) -> tuple[plain_loop.Vqae, list[plain_loop.Prior], Tensor]:
    plan, size = batched.plan, params.batch_size
    stream = batch_stream(plan.autoencoder, params.epochs, size, SEED, "autoencoder")[:, fit]
    pools = [pair[label] for label in (0, 1) for pair in plan.priors]
    streams = batch_stream(pools, params.prior_epochs, size, SEED, "priors")
    first = batched.program._first_samples()[fit]
    x, train = data.values[module], plan.autoencoder[fit]
    if params.standardise:
        x = (x - x[train].mean(0)) / x[train].std(0, correction=0)
    identity = data.modules[module]
    start = vqae_start(
        x.shape[1], len(first), params, module_generator(SEED, identity, fit, "autoencoder")
    )
    weights = [
        prior_weights(params, module_generator(SEED, identity, fit, purpose))
        for purpose in ("violating prior", "aligned prior")
    ]
    batches = (stream, streams[:, fit], streams[:, N_FOLDS + fit])
    return plain_loop.score(start, weights, params, x, data.labels, batches, first)


@pytest.mark.parametrize("fit", range(N_FOLDS))
@pytest.mark.parametrize("module", range(N_MODULES))
def test_the_batched_program_equals_the_plain_loop(
    data: LocalizerInput, params: Params, batched: Batched, fit: int, module: int
) -> None:
    vqae, priors, scores = plain(data, params, batched, fit, module)
    row = fit * N_MODULES + module
    values = batched.autoencoders.block.values
    for name in ("enter", "compress", "expand", "leave"):
        weight = getattr(vqae, name).weight.detach()
        torch.testing.assert_close(values[f"{name}.weight"][row].T, weight, atol=1e-4, rtol=0)
    codes = batched.autoencoders.codebooks.codes[row]
    torch.testing.assert_close(codes, vqae.codes, atol=1e-4, rtol=0)
    for label, prior in enumerate(priors):
        weights = {
            name: v[label * N_FOLDS * N_MODULES + row]
            for name, v in batched.priors.block.values.items()
        }
        recurrent = torch.cat([weights["gates.weight"], weights["new.weight"]], dim=1)
        expected = prior.gru.weight_hh_l0.detach()
        torch.testing.assert_close(recurrent.T, expected, atol=1e-4, rtol=0)
        embedding = prior.embedding.weight.detach()
        torch.testing.assert_close(weights["embedding"], embedding, atol=1e-4, rtol=0)
    torch.testing.assert_close(batched.scores[row], scores, atol=1e-4, rtol=0)
    assert float(scores.std()) > 0.01


def test_the_contrastive_gradient_equals_autograds() -> None:
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(6, 16, 8, generator=source)
    labels = torch.randint(0, 2, (2, 16), generator=source)
    labels[1, 1:], labels[1, 0] = 0, 1  # An anchor without a positive.
    found = contrastive_gradient(latents, pair_weights(labels), temperature=0.2)
    for row in range(6):
        latent = latents[row].clone().requires_grad_()
        plain_loop.supervised_contrastive(latent, labels[row // 3], 0.2).backward()
        assert latent.grad is not None
        torch.testing.assert_close(found[row], latent.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("shifted", [True, False])
def test_the_priors_gradients_equal_autograds(shifted: bool) -> None:
    params = Params(prior_hidden=8, prior_embedding=6, codebook_size=5, prior_clip=1e9)
    source = torch.Generator().manual_seed(0)
    weights = [prior_weights(params, source) for _ in range(3)]
    codes = torch.randint(0, 5, (3, 4, 10), generator=source)
    priors = Priors(weights, params, shifted, torch.device("cpu"))
    before = priors.log_probability(codes)
    priors.step(codes)
    for row in range(3):
        model = plain_loop.Prior(dict(weights[row]), params)
        log_share = model(codes[row].T, shifted)
        torch.testing.assert_close(before[row], log_share.mean(1).detach(), atol=1e-6, rtol=1e-5)
        (-log_share.mean()).backward()
        grads = {name: grad[row] for name, grad in priors.block.grads.items()}
        recurrent = torch.cat([grads["gates.weight"], grads["new.weight"]], dim=1)
        pairs = [
            (recurrent.T, model.gru.weight_hh_l0.grad),
            (grads["input.weight"].T, model.gru.weight_ih_l0.grad),
            (grads["input.bias"][0], model.gru.bias_ih_l0.grad),
            (grads["recurrent.bias"][0], model.gru.bias_hh_l0.grad),
            (grads["embedding"], model.embedding.weight.grad),
            (grads["logits.weight"].T, model.logits.weight.grad),
        ]
        for ours, theirs in pairs:
            assert isinstance(theirs, Tensor)
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_each_prior_is_clipped_by_its_own_norm() -> None:
    params = Params(prior_hidden=8, prior_embedding=6, codebook_size=5, prior_clip=0.05)
    source = torch.Generator().manual_seed(0)
    weights = [prior_weights(params, source) for _ in range(2)]
    codes = torch.randint(0, 5, (2, 4, 10), generator=source)
    free = Priors(weights, params.model_copy(update={"prior_clip": 1e9}), True, torch.device("cpu"))
    clipped = Priors(weights, params, True, torch.device("cpu"))
    free.step(codes)
    clipped.step(codes)
    for row in range(2):
        norm = torch.cat([grad[row].flatten() for grad in free.block.grads.values()]).norm()
        factor = 0.05 / (norm + 1e-6)
        assert float(factor) < 1
        for name, grad in clipped.block.grads.items():
            torch.testing.assert_close(grad[row], free.block.grads[name][row] * factor)
