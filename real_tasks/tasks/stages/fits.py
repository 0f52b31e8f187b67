"""The cached stage that finds operators' tensors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from real_tasks.questions.samples import (
    localizer_input,
    numbered,
    pairs_of,
    rows_of_questions,
    samples_of,
)
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.folds import Fold
from real_tasks.vocabulary.config import ExecutionConfig, PlugIn
from real_tasks.vocabulary.types import BehaviourData, FoldSplit, ModuleKind, layer_modules
from storage.artifacts.store import ArtifactRef


@stage("fits", lambda inputs: modules_of(FITTERS, inputs["fitter"].name))
def fits(
    out: Path,
    *,
    fitter: PlugIn,
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    n_layers: int,
    seed: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Find the tensors of every module of a kind on the training questions of one fold."""
    use_threads(execution)
    return fitted(out, fitter, fold, activations, kind, n_layers, seed, {})


def fitted(
    out: Path,
    fitter: PlugIn,
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    n_layers: int,
    seed: int,
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """Run a fitter, write its tensors, and return facts for the manifest.

    `further` is of `FitterInput`, beside what activations tell.
    """
    data, split = fold.load()
    train_only = replace(split, validation=(), test=())
    further = {**_further(data, split), **further}
    made, found = FITTERS.made(fitter.name, fitter.params), []
    for layer in range(n_layers):
        values = references.load_activations(activations, layer)
        modules = layer_modules(kind, layer, values.shape[1])
        train = localizer_input(modules, values, data, train_only, torch.device("cpu"))
        seen = FitterInput(modules, train.values, train.labels, train.questions, **further)
        found.append(made.fit(seen, seed))
    tensors = {name: torch.stack([one[name] for one in found]) for name in made.gives}
    save_file(tensors, out / references.TENSORS)
    return {"fitter": fitter.name}


def _further(data: BehaviourData, split: FoldSplit) -> dict[str, Any]:
    """Return what the samples of the training questions have besides, as `FitterInput` takes it."""
    samples = samples_of(data)
    samples = [samples[row] for row in rows_of_questions(samples, split.train)]
    classes, class_names = numbered([one.answer.class_name for one in samples])
    conditions, condition_names = numbered([one.question.condition for one in samples])
    return {
        "pairs": pairs_of(samples, data.paired),
        "classes": classes,
        "class_names": class_names,
        "conditions": conditions,
        "condition_names": condition_names,
    }
