"""The cached stage that scores modules by their activations."""

from pathlib import Path
from typing import Any

import torch

from real_tasks.localizers import LOCALIZERS
from real_tasks.models.devices import resolve_device
from real_tasks.questions.samples import localizer_input
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.folds import Fold
from real_tasks.vocabulary.config import ExecutionConfig, PlugIn
from real_tasks.vocabulary.types import LocalizerInput, ModuleKind, layer_modules
from storage.artifacts.store import ArtifactRef


@stage("scores", lambda inputs: modules_of(LOCALIZERS, inputs["localizer"].name))
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
    beside: tuple[ArtifactRef, ...] = (),
) -> dict[str, Any]:
    """Score the modules of one layer on the training and validation questions of one fold."""
    use_threads(execution)
    device = resolve_device(execution.device)
    given = localizer_given(fold, activations, kind, layer, device, beside)
    return {**localized(out, localizer, given, seed), "device": str(device)}


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
    beside: tuple[ArtifactRef, ...],
) -> LocalizerInput:
    """Return what a localizer may see of one layer and fold."""
    data, split = fold.load()
    values = references.load_activations(activations, layer)
    modules = layer_modules(kind, layer, values.shape[1])
    other = references.load_activations(beside, layer) if beside else None
    return localizer_input(modules, values, data, split, device, other)
