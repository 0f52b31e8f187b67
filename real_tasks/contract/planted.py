"""Activations in which it is known which modules tell aligned from violating answers."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from real_tasks.vocabulary.types import LocalizerInput, ModuleId


def planted_input(
    n_modules: int,
    relevant: Sequence[int],
    n_questions: int = 90,
    d: int = 32,
    strength: float = 2.0,
    seed: int = 0,
) -> LocalizerInput:
    """Four answers a question, two of them aligned; a fifth of the questions is for validation.

    Every question shifts all its answers, in every module; the label shifts the relevant modules.
    """
    source = torch.Generator().manual_seed(seed)
    questions = torch.arange(n_questions).repeat_interleave(4)
    labels = torch.arange(len(questions)) % 4 % 2
    topics = torch.randn(n_modules, n_questions, d, generator=source)
    noise = torch.randn(n_modules, len(questions), d, generator=source)
    values = 0.7 * topics[:, questions] + noise
    direction = torch.randn(n_modules, 1, d, generator=source)
    direction = direction / direction.norm(dim=2, keepdim=True)
    for module in relevant:
        values[module] += strength * direction[module] * labels[:, None]
    mixing = torch.randn(n_modules, d, d, generator=source) / d**0.5
    return LocalizerInput(
        modules=tuple(ModuleId("head", index // 8, index % 8) for index in range(n_modules)),
        values=values @ mixing,
        labels=labels,
        questions=questions,
        train=questions < 0.8 * n_questions,
        pairs=tuple(place ^ 1 for place in range(len(questions))),
    )


def part_of(data: LocalizerInput, modules: Sequence[int]) -> LocalizerInput:
    """Return a shard of some of the modules."""
    own = tuple(data.modules[index] for index in modules)
    return replace(data, modules=own, values=data.values[list(modules)])
