"""Processor time of a setting of tuning, against full passes and against one text at a time.

    python -m tests.benchmarks.bench_tuning

A setting is multiple choice and side effects under one intervention. All three ways measure the
same in the same run, and take turns; a figure is the median, and the largest difference between
their log-likelihoods stands beside it. Full passes keep nothing of the unsteered model.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.effects import Effects
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.models.kept_states import KeptStates
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.vocabulary.types import ModuleId
from tests.benchmarks.arguments import parsed, parser_of
from tests.benchmarks.bench_extraction import (
    demo_sized_data,
    one_answer_at_a_time,
    one_text_at_a_time,
)
from tests.benchmarks.bench_prefix import small_llama

Way = Callable[[], Sequence[float]]
DATA = demo_sized_data()
BATCH_TOKENS = 16384


def steered(loaded: LoadedModel, layers: Sequence[int], n_heads: int = 16) -> Intervention:
    """Heads pushed along random directions, spread over the layers."""
    shape = loaded.shape
    heads = {(layers[i * len(layers) // n_heads], i % shape.n_heads) for i in range(n_heads)}
    modules = tuple(ModuleId("head", layer, head) for layer, head in sorted(heads))
    torch.manual_seed(0)
    ones = torch.ones(len(modules))
    tensors = {"direction": torch.randn(len(modules), shape.head_dim), "scale": 0.1 * ones}
    return Intervention((Edit(modules, tensors, ones),))


def measured(loaded: LoadedModel, iv: Intervention) -> Way:
    """Return a measurement of a setting as tuning makes it; its texts are encoded once."""
    choices = encode_choices(loaded, DATA, range(len(DATA.questions)), BATCH_TOKENS)
    neutral = encode_neutral(loaded, DATA.neutral_texts, BATCH_TOKENS)

    def measure() -> list[float]:
        side_effects(loaded, neutral, iv)
        return [score for row in score_choices(loaded, choices, iv) for score in row]

    return measure


def one_at_a_time(loaded: LoadedModel, iv: Intervention) -> Way:
    """Return the same, each text in a pass of its own."""

    def measure() -> list[float]:
        one_text_at_a_time(loaded, DATA.neutral_texts, iv)
        return one_answer_at_a_time(loaded, DATA, iv)

    return measure


def effects_of_all_heads(loaded: LoadedModel) -> Way:
    """Return the measurement that the localizer ``causal`` makes: each head steered alone."""
    shape, questions = loaded.shape, range(len(DATA.questions))
    modules = [ModuleId("head", la, he) for la in range(shape.n_layers) for he in (0, 1)]
    push = 0.1 * torch.ones(shape.head_dim)

    def measure() -> list[float]:
        effects = Effects(loaded, DATA, questions, BATCH_TOKENS)
        return [effects(module, push) for module in modules]

    return measure


def processor_seconds(rounds: int, ways: Sequence[Way]) -> tuple[list[float], float]:
    """Return each way's median time, and how far what they found is apart."""
    found = [torch.tensor(way()) for way in ways]
    worst = max(float((one - found[0]).abs().max()) for one in found)
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, times, strict=True):
            start = time.process_time()
            way()
            taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in times], worst


def bench(loaded: LoadedModel, rounds: int, console: Console) -> None:
    """Print milliseconds and ratios of every case."""
    full = replace(loaded, kept=KeptStates(0))
    n = loaded.shape.n_layers
    cases = {
        "16 heads of all layers": range(n),
        "16 heads of the upper half": range(n // 2, n),
        "heads of the middle layer": range(n // 2, n // 2 + 1),
    }
    columns = ("ours, ms", "full passes, ms", "ratio", "one at a time, ms", "ratio", "difference")
    table = Table("steered", *columns)

    def add(name: str, ways: Sequence[Way]) -> None:
        (ours, *others), worst = processor_seconds(rounds, ways)
        cells = [cell for t in others for cell in (f"{1e3 * t:.0f}", f"{t / ours:.1f}")]
        cells += ["", ""] * (2 - len(others))
        table.add_row(name, f"{1e3 * ours:.0f}", *cells, f"{worst:.1e}")

    for name, layers in cases.items():
        iv = steered(loaded, layers)
        add(name, [measured(loaded, iv), measured(full, iv), one_at_a_time(loaded, iv)])
    add("each head alone (causal)", [effects_of_all_heads(one) for one in (loaded, full)])
    console.print(table)


def main() -> None:
    """Run the benchmark."""
    parser = parser_of(__doc__)
    parser.add_argument("--width", type=int, default=256, help="width of the residual stream")
    parser.add_argument("--layers", type=int, default=12)
    arguments = parsed(parser)
    loaded = small_llama(arguments.device, arguments.width, arguments.layers)
    bench(loaded, arguments.rounds, Console())


if __name__ == "__main__":
    main()
