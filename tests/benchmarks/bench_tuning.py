"""Processor time of a setting of tuning, against full passes and against one text at a time.

A setting is multiple choice and side effects under one intervention. All three ways measure the
same in the same run. Full passes keep nothing of the unsteered model.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.effects import Effects
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.models.kept_states import KeptStates
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.vocabulary.types import ModuleId
from tests.benchmarks.bench_extraction import one_answer_at_a_time, one_text_at_a_time
from tests.benchmarks.common import (
    BATCH_TOKENS,
    Options,
    Row,
    demo_sized_data,
    seconds,
    small_llama,
)

Way = Callable[[], Sequence[float]]
DATA = demo_sized_data()
BASELINES = ("full passes", "one text at a time")
APART = 1e-3
"""Nats by which two ways may differ."""


def rows(options: Options) -> Iterator[Row]:
    loaded = small_llama(options.device, *options.sized((256, 12), (64, 4)))
    full, n = replace(loaded, kept=KeptStates(0)), loaded.shape.n_layers
    cases = {
        "16 heads of all layers": range(n),
        "16 heads of the upper half": range(n // 2, n),
        "heads of the middle layer": range(n // 2, n // 2 + 1),
    }
    for name, layers in cases.items():
        iv = steered(loaded, layers)
        ways = [measured(loaded, iv), measured(full, iv), one_at_a_time(loaded, iv)]
        yield from compared(f"a setting of tuning, {name}", options.rounds, ways)
    ways = [effects_of_all_heads(one) for one in (loaded, full)]
    yield from compared("each head alone (causal)", options.rounds, ways)


def compared(name: str, rounds: int, ways: Sequence[Way]) -> Iterator[Row]:
    """Compare the first way with each other, which has to find the same."""
    found = [torch.tensor(way()) for way in ways]
    assert all(float((one - found[0]).abs().max()) < APART for one in found), name
    ours, *others = (1e3 * one for one in seconds(rounds, *ways, clock=time.process_time))
    for other, baseline in zip(others, BASELINES, strict=False):
        what = f"{name}, ms of processor"
        yield Row(what, ours, other, baseline, short=baseline == BASELINES[0])


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
