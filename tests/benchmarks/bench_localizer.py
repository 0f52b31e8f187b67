"""Speed of REAL's batched program against a plain loop over modules.

Run it as `python -m tests.benchmarks.bench_localizer`.

Both do the published work on the same data: a layer of Llama-2-7B (32 heads x 128), 2,400 answers,
20 epochs of the VQ-AE, 2 x 10 of the priors, batches of 32. The loop runs one thread a process and
a process a core, the way the published code runs; the batched program once, on as many threads.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

N_ANSWERS, WIDTH, ANSWERS_PER_QUESTION, SEED = 2400, 128, 6, 0


@dataclass(frozen=True)
class Result:
    """Wall seconds per head with all cores at work, and the floor that the products set."""

    baseline: float
    batched: float
    floor: float

    @property
    def ratio(self) -> float:
        return self.baseline / self.batched


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


def measure(heads: int, baseline_heads_per_core: int, say: Callable[[str], Any]) -> Result:
    """Measure all three in one run, on all the cores that torch would use."""
    params, cores = PUBLISHED, torch.get_num_threads()
    say(f"{heads} heads x {WIDTH}, {N_ANSWERS} answers, {cores} cores\n")
    floor = counted_operations(params) / measure_product_speed(cores)
    say(f"floor, products alone    {floor:6.3f} s per head\n")
    # Before and after the loop, so that a load that comes or goes favours neither.
    before = measure_batched(heads, params)
    baseline = measure_baseline(baseline_heads_per_core, cores, params)
    batched = (before + measure_batched(heads, params)) / 2
    say(f"batched program          {batched:6.3f} s per head\n")
    say(f"plain loop               {baseline:6.3f} s per head ({cores} processes)\n")
    result = Result(baseline, batched, floor)
    say(f"throughput ratio         {result.ratio:6.2f}   (of the floor: {floor / batched:.0%})\n")
    return result


def main() -> None:
    """Parse the arguments and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=32, help="heads of the batched program")
    parser.add_argument(
        "--baseline-heads", type=int, default=2, help="heads of the plain loop, per core"
    )
    arguments = parser.parse_args()
    measure(arguments.heads, arguments.baseline_heads, sys.stdout.write)


if __name__ == "__main__":
    main()
