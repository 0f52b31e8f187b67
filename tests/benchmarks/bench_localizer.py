"""Speed of REAL's batched program against a plain loop over modules.

Both do the published work on the same data: a layer of Llama-2-7B (32 heads x 128), 2,400 answers,
20 epochs of the VQ-AE, 2 x 10 of the priors, batches of 32. The loop runs one thread a process and
a process a core, the way the published code runs; the batched program once, on as many threads.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from real_tasks.localizers.real import PUBLISHED, fit_shard
from real_tasks.localizers.real.params import Params
from real_tasks.localizers.real.plan import FitPlan, batch_stream
from real_tasks.localizers.real.prior import prior_weights
from real_tasks.localizers.real.vqae import vqae_start
from real_tasks.localizers.seeding import module_generator
from real_tasks.vocabulary.types import LocalizerInput, ModuleId
from tests.benchmarks import plain_loop
from tests.benchmarks.common import Options, Row

N_ANSWERS, WIDTH, ANSWERS_PER_QUESTION, SEED = 2400, 128, 6, 0


HEADS, HEADS_OF_LOOP = 32, 2
"""Heads of the batched program, and of the plain loop on each core."""


def rows(options: Options) -> Iterator[Row]:
    """Wall seconds a head with all the cores at work that torch would use."""
    few = {"epochs": 1, "prior_epochs": 1}
    params = options.sized(PUBLISHED, PUBLISHED.model_copy(update=few))
    heads, heads_of_loop = options.sized((HEADS, HEADS_OF_LOOP), (2, 1))
    cores = torch.get_num_threads()
    # Before and after the loop, so that a load that comes or goes favours neither.
    before = measure_batched(heads, params)
    baseline = measure_baseline(heads_of_loop, cores, params)
    batched = (before + measure_batched(heads, params)) / 2
    loop = f"plain PyTorch loop, a process on each of {cores} cores"
    what = f"localizer, a head of {WIDTH} of a layer's {heads}, {N_ANSWERS:,} answers, s"
    yield Row(what, batched, baseline, loop, short=True)
    floor = counted_operations(params) / measure_product_speed(cores)
    yield Row("the same, s", batched, floor, "its matrix products alone")


def make_input(heads: int) -> LocalizerInput:
    """Random activations in which the label shifts every head a little."""
    source = torch.Generator().manual_seed(SEED)
    labels = torch.arange(N_ANSWERS) % 2
    shift = 0.3 * torch.randn(heads, 1, WIDTH, generator=source)
    values = torch.randn(heads, N_ANSWERS, WIDTH, generator=source) + shift * labels[:, None]
    return LocalizerInput(
        modules=tuple(ModuleId("head", 0, head) for head in range(heads)),
        values=values,
        labels=labels,
        questions=torch.arange(N_ANSWERS) // ANSWERS_PER_QUESTION,
        train=torch.ones(N_ANSWERS, dtype=torch.bool),
    )


def one_fit(data: LocalizerInput) -> FitPlan:
    """Cross-fitting off: one fit, on everything."""
    samples = torch.arange(len(data.labels))
    pair = (samples[data.labels == 0], samples[data.labels == 1])
    return FitPlan((samples,), (pair,), (samples,))


def run_plain(data: LocalizerInput, head: int, params: Params) -> None:
    """Fit one head by the plain loop."""
    plan, module = one_fit(data), data.modules[head]
    size = params.batch_size
    stream = batch_stream(plan.autoencoder, params.epochs, size, SEED, "autoencoder")[:, 0]
    streams = batch_stream(plan.priors[0], params.prior_epochs, size, SEED, "priors")
    first = torch.arange(size)
    start = vqae_start(WIDTH, size, params, module_generator(SEED, module, 0, "autoencoder"))
    weights = [
        prior_weights(params, module_generator(SEED, module, 0, purpose))
        for purpose in ("violating prior", "aligned prior")
    ]
    batches = (stream, streams[:, 0], streams[:, 1])
    plain_loop.score(start, weights, params, data.values[head], data.labels, batches, first)


def baseline_worker(heads: int, params: Params, barrier: Any, results: Any) -> None:
    """Fit heads one after the other in this process; start together with the other processes."""
    torch.set_num_threads(1)
    data = make_input(heads)
    run_plain(data, 0, params.model_copy(update={"epochs": 1, "prior_epochs": 1}))
    barrier.wait()
    started = time.perf_counter()
    for head in range(heads):
        run_plain(data, head, params)
    results.put((started, time.perf_counter()))


def measure_baseline(heads_per_core: int, cores: int, params: Params) -> float:
    """Seconds per head of the plain loop, a process a core."""
    context = get_context("spawn")
    barrier, results = context.Barrier(cores), context.Queue()
    arguments = (heads_per_core, params, barrier, results)
    workers = [context.Process(target=baseline_worker, args=arguments) for _ in range(cores)]
    for worker in workers:
        worker.start()
    spans = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    return wall / (heads_per_core * cores)


def measure_batched(heads: int, params: Params) -> float:
    """Seconds per head of the batched program."""
    data = make_input(heads)
    plan = one_fit(data)
    fit_shard(data, plan, params.model_copy(update={"epochs": 1, "prior_epochs": 1}), SEED)
    started = time.perf_counter()
    fit_shard(data, plan, params, SEED)
    return (time.perf_counter() - started) / heads


def counted_operations(params: Params) -> float:
    """Floating-point operations in the matrix products of one head's training."""
    d, batch, units, codes = WIDTH, params.batch_size, params.units, params.codebook_size
    hidden, width = params.prior_hidden, params.prior_embedding
    affine = 3 * 3 * d * d - d * d  # Forth, weights, inputs; the first map's input needs none.
    nearest_and_means = 2 * codes * d // 2
    contrastive = 2 * batch * d // 2
    autoencoder = 2 * batch * (affine + nearest_and_means + contrastive)
    recurrent = 3 * (units - 1) * hidden * 3 * hidden
    logits = 3 * units * hidden * codes
    table = 3 * (codes + 1) * width * 3 * hidden
    prior = 2 * (batch * (recurrent + logits) + table)
    steps = params.epochs * (N_ANSWERS // batch), params.prior_epochs * N_ANSWERS // batch
    return float(steps[0] * autoencoder + steps[1] * prior)


def measure_product_speed(cores: int, seconds: float = 1.0) -> float:
    """Operations a second of batched products of the VQ-AE's shape, all cores together."""

    def work(_: int) -> float:
        a, b = torch.randn(8, 32, WIDTH), torch.randn(8, WIDTH, WIDTH)
        out, rounds, started = torch.empty(8, 32, WIDTH), 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            for _ in range(100):
                torch.bmm(a, b, out=out)
            rounds += 100
        return 2 * 8 * 32 * WIDTH**2 * rounds / (time.perf_counter() - started)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(cores) as pool:
        speed = sum(pool.map(work, range(cores)))
    torch.set_num_threads(threads)
    return speed
