"""The cached stage that scores modules with the model itself: its weights, or by steering it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from real_tasks.experiment.localizer_access import access_given
from real_tasks.localizers import LOCALIZERS
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages.folds import Fold
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.tasks.stages.scores import localized, localizer_given
from real_tasks.vocabulary.config import ExecutionConfig, PlugIn
from real_tasks.vocabulary.types import ModuleKind
from storage.artifacts.store import ArtifactRef


@stage("effects", lambda inputs: modules_of(LOCALIZERS, inputs["localizer"].name))
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
    beside: tuple[ArtifactRef, ...] = (),
) -> dict[str, Any]:
    """Score the modules of one layer by a localizer that asks for the model."""
    use_threads(execution)
    data, split = fold.load()
    loaded = model.load(execution)
    made = LOCALIZERS.made(localizer.name, localizer.params)
    given = localizer_given(fold, activations, kind, layer, loaded.device, beside)
    given = replace(given, **access_given(made, loaded, data, split, batch_tokens))
    return {**localized(out, localizer, given, seed), "device": str(loaded.device)}
