"""The cached stage that finds directions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from real_tasks.questions.samples import localizer_input
from real_tasks.steering.directions import DIRECTIONS, projection_sigma
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.folds import Fold
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.types import ModuleKind, layer_modules
from storage.artifacts.store import ArtifactRef


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
