"""The cached stages that score modules, by activations or by effects, and find directions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from real_tasks.evaluation.answers.effects import Effects
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.loading import resolve_device
from real_tasks.questions.samples import localizer_input
from real_tasks.steering.directions import DIRECTIONS, projection_sigma
from real_tasks.tasks.cache.code_version import module_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.references import Fold, ModelRef
from real_tasks.vocabulary.config import ExecutionConfig, PlugIn
from real_tasks.vocabulary.types import LocalizerInput, ModuleKind, layer_modules
from storage.artifacts.store import ArtifactRef


@stage("scores", lambda inputs: module_of(LOCALIZERS, inputs["localizer"].name))
def scores(
    out: Path,
    *,
    localizer: PlugIn,
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    layer: int,
    seed: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Score the modules of one layer on the training and validation questions of one fold."""
    use_threads(execution)
    device = resolve_device(execution.device)
    given = localizer_given(fold, activations, kind, layer, device)
    return {**localized(out, localizer, given, seed), "device": str(device)}


@stage("effects", lambda inputs: module_of(LOCALIZERS, inputs["localizer"].name))
def effects(
    out: Path,
    *,
    localizer: PlugIn,
    model: ModelRef,
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    layer: int,
    seed: int,
    batch_tokens: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Score the modules of one layer by a localizer that steers the model."""
    use_threads(execution)
    data, split = fold.load()
    loaded = model.load(execution)
    given = replace(
        localizer_given(fold, activations, kind, layer, loaded.device),
        effect=Effects(loaded, data, split.validation, batch_tokens),
    )
    return {**localized(out, localizer, given, seed), "device": str(loaded.device)}


def localized(out: Path, localizer: PlugIn, given: LocalizerInput, seed: int) -> dict[str, Any]:
    """Run a localizer, write its scores, and return facts for the manifest."""
    result = LOCALIZERS.made(localizer.name, localizer.params).localize(given, seed)
    references.save_scores(out, result)
    return {"modules": len(given.modules)}


def localizer_given(
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    layer: int,
    device: torch.device,
) -> LocalizerInput:
    """Return what a localizer may see of one layer and fold."""
    data, split = fold.load()
    values = references.load_activations(activations, layer)
    modules = layer_modules(kind, layer, values.shape[1])
    return localizer_input(modules, values, data, split, device)


@stage("directions")
def directions(
    out: Path,
    *,
    direction: str,
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    n_layers: int,
    seed: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Find every module's direction, and sigma along it, on the training questions of one fold."""
    use_threads(execution)
    data, split = fold.load()
    train_only = replace(split, validation=(), test=())
    thetas, sigmas = [], []
    for layer in range(n_layers):
        values = references.load_activations(activations, layer)
        modules = layer_modules(kind, layer, values.shape[1])
        train = localizer_input(modules, values, data, train_only, torch.device("cpu"))
        theta = DIRECTIONS[direction](modules, train.values, train.labels, seed)
        thetas.append(theta)
        sigmas.append(projection_sigma(train.values, theta))
    tensors = {"directions": torch.stack(thetas), "sigmas": torch.stack(sigmas)}
    save_file(tensors, out / references.DIRECTIONS)
    return {"direction": direction}
