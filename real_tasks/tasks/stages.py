"""The cached stages that read activations, score modules and find directions."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from real_tasks.checkpoints import DTYPES
from real_tasks.config import ExecutionConfig, ExtractionConfig, ModelConfig, PlugIn
from real_tasks.directions import DIRECTIONS, projection_sigma
from real_tasks.errors import UserInputError
from real_tasks.evaluation.effects import Effects
from real_tasks.extraction import activations_at_last_token, check_vocabulary
from real_tasks.hub import local_checkpoint, resolved_revision, unedited
from real_tasks.identity import checkpoint_files
from real_tasks.localizers import LOCALIZERS
from real_tasks.models import check_model, resolve_device
from real_tasks.organism import EMBEDDED_MODELS
from real_tasks.prompts import reading_text
from real_tasks.samples import localizer_input
from real_tasks.tasks import loading, progress
from real_tasks.tasks.caching import stage
from real_tasks.tasks.data import Shard
from real_tasks.tasks.loading import Fold, ModelRef
from real_tasks.tasks.machine import use_threads
from real_tasks.types import LocalizerInput, ModuleKind, layer_modules
from real_tasks.weights import check_stored_finite
from storage.activations import write_shard
from storage.artifacts import ArtifactRef, sha256_of


def module_of(registry: Any, name: str) -> list[str]:
    """Return the module of a plug-in, none where the name is unknown."""
    return [registry[name].__module__] if name in registry else []


@stage("checkpoint", lambda inputs: module_of(EMBEDDED_MODELS, inputs["model"].path))
def checkpoint(
    out: Path, *, model: ModelConfig, fingerprint: str, execution: ExecutionConfig
) -> dict[str, Any]:
    """Make the embedded model, or note which checkpoint of the user's is meant."""
    if model.path not in EMBEDDED_MODELS:
        folder = local_checkpoint(model.path, model.revision).absolute()
        check_model(model)
        check_stored_finite(checkpoint_files(folder).values(), DTYPES[model.dtype])
        (out / "fingerprint").write_text(fingerprint)
        files = loading.content_of(folder, model)
        if sha256_of(files) != fingerprint:
            raise UserInputError(f"{folder} changes while it is read; run again when it is whole")
        revision = resolved_revision(folder) if unedited(folder, files) else None
        return {"folder": str(folder), "revision": revision, "files": files}
    use_threads(execution, alone=True)
    embedded = EMBEDDED_MODELS.made(model.path, model.params)
    return embedded.build(out, lambda done, total: progress.report("checkpoint", done, total))


def fingerprint_of(model: ModelConfig) -> str:
    """Return what tells a checkpoint from others: a hash of the files that are read of it.

    An embedded model is known by its parameters.
    """
    if model.path in EMBEDDED_MODELS:
        return ""
    return sha256_of(loading.content_of(local_checkpoint(model.path, model.revision), model))


@stage("activations")
def activations(
    out: Path,
    *,
    model: ModelRef,
    shard: Shard,
    kind: ModuleKind,
    config: ExtractionConfig,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Read the activations of one shard of samples, all layers in one pass."""
    use_threads(execution)
    data, samples = loading.load_dataset(shard.dataset), shard.samples()
    loaded = model.load(execution)
    texts = [reading_text(loaded, data, sample.question, sample.answer) for sample in samples]
    check_vocabulary(loaded, texts)
    largest = float(np.finfo(config.dtype).max)
    values = activations_at_last_token(loaded, texts, config.batch_tokens, kind, largest)
    rows = [
        {
            **model.columns,
            "behaviour": data.name,
            "question_id": sample.question.question_id,
            "answer_id": sample.answer.answer_id,
            "label": sample.answer.label,
        }
        for sample in samples
    ]
    write_shard(out, 0, rows, values.numpy(), config.dtype, kind)
    return {"samples": len(samples), "device": str(loaded.device), **asdict(loaded.shape)}


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
    loading.save_scores(out, result)
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
    values = loading.load_activations(activations, layer)
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
        values = loading.load_activations(activations, layer)
        modules = layer_modules(kind, layer, values.shape[1])
        train = localizer_input(modules, values, data, train_only, torch.device("cpu"))
        theta = DIRECTIONS[direction](modules, train.values, train.labels, seed)
        thetas.append(theta)
        sigmas.append(projection_sigma(train.values, theta))
    tensors = {"directions": torch.stack(thetas), "sigmas": torch.stack(sigmas)}
    save_file(tensors, out / loading.DIRECTIONS)
    return {"direction": direction}
