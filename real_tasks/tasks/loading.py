"""From references back to values."""

import json
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from real_tasks.config import ExecutionConfig
from real_tasks.models import LoadedModel, load_model
from real_tasks.tasks.caching import store
from real_tasks.types import BehaviourData, LocalizerResult, ModuleId, ModuleScore
from storage.activations import read_layer
from storage.artifacts import ArtifactRef

DATASET = "dataset.json"
SCORES = "scores.json"
EVIDENCE = "evidence.safetensors"
DIRECTIONS = "directions.safetensors"
EVALUATION = "evaluation.json"
SPEC = "spec"

_dataset_type = TypeAdapter(BehaviourData)
_scores_type = TypeAdapter(tuple[ModuleScore, ...])
_loading = threading.Lock()


def dataset_json(data: BehaviourData) -> bytes:
    """Return the data as JSON."""
    return _dataset_type.dump_json(data)


def load_dataset(ref: ArtifactRef) -> BehaviourData:
    """Return the behaviour's data."""
    return _dataset_type.validate_json((store().open(ref) / DATASET).read_bytes())


def checkpoint_folder(ref: ArtifactRef) -> Path:
    """Return the folder of the checkpoint: the artifact itself, or where the user keeps it."""
    folder = store().facts(ref).get("folder")
    return Path(folder) if folder else store().open(ref)


def load_checkpoint(ref: ArtifactRef, dtype: str, execution: ExecutionConfig) -> LoadedModel:
    """Return the model with modules and hooks of its own; the weights are loaded once a process."""
    with _loading:
        folder = str(checkpoint_folder(ref))
        return _loaded(folder, ref.digest, dtype, execution.device).private_copy()


@lru_cache(maxsize=1)
def _loaded(folder: str, _digest: str, dtype: str, device: str) -> LoadedModel:
    return load_model(folder, dtype, device)


def load_activations(refs: Sequence[ArtifactRef], layer: int) -> np.ndarray:
    """Return a layer's head activations of all samples, `[sample, head, d_head]`, float32."""
    return read_layer([store().open(ref) for ref in refs], layer)


def save_scores(out: Path, result: LocalizerResult) -> None:
    """Write a localizer's result."""
    scores = json.loads(_scores_type.dump_json(result.scores))
    text = json.dumps({"protocol": result.protocol, "scores": scores})
    (out / SCORES).write_text(text)
    save_file({name: t.contiguous().cpu() for name, t in result.evidence.items()}, out / EVIDENCE)


def load_scores(refs: Sequence[ArtifactRef]) -> LocalizerResult:
    """Return the scores of all shards, without their evidence."""
    read = [json.loads((store().open(ref) / SCORES).read_text()) for ref in refs]
    scores = [score for part in read for score in _scores_type.validate_python(part["scores"])]
    return LocalizerResult(read[0]["protocol"], tuple(scores))


def load_evidence(ref: ArtifactRef) -> dict[str, torch.Tensor]:
    """Return the evidence of one shard."""
    evidence: dict[str, torch.Tensor] = load_file(store().open(ref) / EVIDENCE)
    return evidence


def load_directions(ref: ArtifactRef) -> tuple[torch.Tensor, torch.Tensor]:
    """Return directions `[layer, head, d_head]` and sigmas `[layer, head]`."""
    tensors = load_file(store().open(ref) / DIRECTIONS)
    return tensors["directions"], tensors["sigmas"]


def load_evaluation(ref: ArtifactRef) -> dict[str, Any]:
    """Return what `stages.evaluation` wrote."""
    evaluation: dict[str, Any] = json.loads((store().open(ref) / EVALUATION).read_text())
    return evaluation


def heads_of_layer(layer: int, n_heads: int) -> tuple[ModuleId, ...]:
    """Return the head modules of a layer."""
    return tuple(ModuleId("head", layer, head) for head in range(n_heads))
