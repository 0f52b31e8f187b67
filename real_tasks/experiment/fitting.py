"""What fitters are given of an experiment's data, and the tensors that they find."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import Sample, numbered, pairs_of, rows_of_questions, samples_of
from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.types import (
    BehaviourData,
    FoldSplit,
    ModuleId,
    ModuleKind,
    layer_modules,
)


def fitted_tensors(
    fitter: PlugIn,
    layers: Iterable[Float[np.ndarray, "sample module d"]],
    data: BehaviourData,
    split: FoldSplit,
    kind: ModuleKind,
    seed: int,
    further: Mapping[str, Any],
    beside: Iterable[Float[np.ndarray, "sample one d_model"]] | None = None,
    only: Collection[ModuleId] | None = None,
) -> dict[str, Float[Tensor, "layer module ..."]]:
    """Return the tensors of every module of a kind, found on the training questions of one fold.

    Where a fitter gives one for all modules of a layer, so does this. Activations, and those of the
    part that it sees ``beside``, come layer by layer, of all samples. ``further`` is of
    `FitterInput`, beside what data and activations tell. Of a fitter that finds each module alone,
    those ``only`` may be wanted; tensors of the others are not a number then.
    """
    samples = samples_of(data)
    rows = rows_of_questions(samples, split.train)
    told = replace(samples_told(data, [samples[row] for row in rows]), **further)
    made = FITTERS.made(fitter.name, fitter.params)
    others = iter(beside or ())
    read = ((layer_modules(kind, i, layer.shape[1]), layer) for i, layer in enumerate(layers))
    found = []
    for part in [list(read)] if made.all_layers else ([one] for one in read):
        modules = tuple(module for own, _ in part for module in own)
        values = np.concatenate([values[rows] for _, values in part], axis=1).swapaxes(0, 1)
        chosen = torch.from_numpy(np.ascontiguousarray(values)).float()
        seen = replace(told, modules=modules, values=chosen)
        if beside is not None:
            streams = [torch.from_numpy(next(others)[rows, 0]).float() for _ in part]
            seen = replace(seen, beside=torch.stack(streams))
        own = _found(made, seen, seed, only)
        found.append({n: t.unflatten(0, (len(part), -1)) for n, t in own.items()})
    none = {name: torch.full_like(t, torch.nan) for one in found for name, t in one.items()}
    return {name: torch.cat([(one or none)[name] for one in found]) for name in made.gives}


def _found(
    made: Fitter, seen: FitterInput, seed: int, only: Collection[ModuleId] | None
) -> dict[str, Float[Tensor, "module ..."]]:
    """Return what a fitter finds, of some modules alone if they are named; nothing without one."""
    if only is None:
        return made.fit(seen, seed)
    rows = [row for row, module in enumerate(seen.modules) if module in only]
    if not rows:
        return {}
    some = replace(seen, modules=tuple(seen.modules[row] for row in rows), values=seen.values[rows])
    n, found = len(seen.modules), made.fit(some, seed)
    every = {name: t.new_full((n, *t.shape[1:]), torch.nan) for name, t in found.items()}
    for name, tensor in found.items():
        every[name][rows] = tensor
    return every


def samples_told(data: BehaviourData, samples: Sequence[Sample]) -> FitterInput:
    """Return what fitters see of samples before any activation is read: no modules, no values."""
    classes, class_names = numbered([one.answer.class_name for one in samples])
    conditions, condition_names = numbered([one.question.condition for one in samples])
    groups = question_groups(data.questions)
    return FitterInput(
        modules=(),
        values=torch.empty(0, len(samples), 0),
        labels=torch.tensor([one.answer.label for one in samples]),
        questions=torch.tensor([groups[one.question_index] for one in samples]),
        pairs=pairs_of(samples, data.paired),
        classes=classes,
        class_names=class_names,
        conditions=conditions,
        condition_names=condition_names,
    )
