"""The cached stage that finds operators' tensors with the model itself."""

from pathlib import Path
from typing import Any

from real_tasks.evaluation.model_handle import model_given
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.selection import best_modules
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.fits import fitted
from real_tasks.tasks.stages.folds import Fold
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig, PlugIn
from real_tasks.vocabulary.types import ModuleKind
from storage.artifacts.store import ArtifactRef


@stage("model_fits", lambda inputs: modules_of(FITTERS, inputs["fitter"].name))
def model_fits(
    out: Path,
    *,
    fitter: PlugIn,
    model: ModelRef,
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    n_layers: int,
    seed: int,
    batch_tokens: int,
    execution: ExecutionConfig,
    ranked: tuple[ArtifactRef, ...] = (),
    beside: tuple[ArtifactRef, ...] = (),
    scores: tuple[ArtifactRef, ...] = (),
    top_k: int = 0,
) -> dict[str, Any]:
    """Find the tensors of modules by a fitter that asks for the model.

    With `scores`, of the ``top_k`` best alone.
    """
    use_threads(execution)
    loaded = model.load(execution)
    further = model_given(loaded, *fold.load(), batch_tokens)
    only = None
    if scores:
        only = best_modules(references.load_scores(scores).scores, top_k)
    given = fitter, fold, activations, kind, n_layers, seed, ranked, further, beside
    facts = fitted(out, *given, only)
    return {**facts, "device": str(loaded.device)}
