"""The cached stage that finds operators' tensors."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from real_tasks.experiment.fitting import fitted_tensors
from real_tasks.steering.fitters import FITTERS
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.folds import Fold
from real_tasks.vocabulary.config import ExecutionConfig, PlugIn
from real_tasks.vocabulary.types import ModuleId, ModuleKind
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
    ranked: tuple[ArtifactRef, ...] = (),
    beside: tuple[ArtifactRef, ...] = (),
) -> dict[str, Any]:
    """Find the tensors of every module of a kind on the training questions of one fold."""
    use_threads(execution)
    return fitted(out, fitter, fold, activations, kind, n_layers, seed, ranked, {}, beside)


def fitted(
    out: Path,
    fitter: PlugIn,
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    n_layers: int,
    seed: int,
    ranked: tuple[ArtifactRef, ...],
    further: Mapping[str, Any],
    beside: tuple[ArtifactRef, ...],
    only: Collection[ModuleId] | None = None,
) -> dict[str, Any]:
    """Run a fitter, write its tensors, and return facts for the manifest.

    `ranked` are the scores that the fitter asks for, by shards; `further` is of `FitterInput`,
    beside what activations tell; `only` is of `fitted_tensors`.
    """
    data, split = fold.load()
    layers, others = (
        map(partial(references.load_activations, refs), range(n_layers))
        for refs in (activations, beside)
    )
    if ranked:
        further = {**further, "ranked": references.load_ranked(ranked)}
    given = fitter, layers, data, split, kind, seed, further
    tensors = fitted_tensors(*given, beside=others if beside else None, only=only)
    save_file(tensors, out / references.TENSORS)
    return {"fitter": fitter.name}
