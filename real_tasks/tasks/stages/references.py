"""From references back to values."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from real_tasks.tasks.cache.stage import store
from real_tasks.vocabulary.types import BehaviourData, LocalizerResult, ModuleScore
from storage.artifacts.activations import read_layer
from storage.artifacts.store import ArtifactRef

DATASET = "dataset.json"
SCORES = "scores.json"
EVIDENCE = "evidence.safetensors"
TENSORS = "tensors.safetensors"
EVALUATION = "evaluation.json"
SPEC = "spec"
MEASURED = "measured.json"

_dataset_type = TypeAdapter(BehaviourData)
_scores_type = TypeAdapter(tuple[ModuleScore, ...])


def dataset_json(data: BehaviourData) -> bytes:
    """Return the data as JSON."""
    return _dataset_type.dump_json(data)


def parsed_dataset(text: str | bytes) -> BehaviourData:
    """Return the data that `dataset_json` wrote."""
    return _dataset_type.validate_json(text)


@lru_cache(maxsize=8)
def _parsed_dataset(path: Path, _digest: str) -> BehaviourData:
    return parsed_dataset(path.read_bytes())


def load_dataset(ref: ArtifactRef) -> BehaviourData:
    """Return the behaviour's data."""
    return _parsed_dataset(store().open(ref) / DATASET, ref.digest)


def load_activations(refs: Sequence[ArtifactRef], layer: int) -> np.ndarray:
    """Return a layer's activations of all samples, `[sample, module, d]`, float32."""
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


def load_ranked(refs: Sequence[ArtifactRef]) -> tuple[LocalizerResult, ...]:
    """Return the scores of every shard, with their evidence."""
    return tuple(replace(load_scores([ref]), evidence=load_evidence(ref)) for ref in refs)


def load_evidence(ref: ArtifactRef) -> dict[str, torch.Tensor]:
    """Return the evidence of one shard."""
    evidence: dict[str, torch.Tensor] = load_file(store().open(ref) / EVIDENCE)
    return evidence


def load_tensors(ref: ArtifactRef) -> dict[str, torch.Tensor]:
    """Return a fitter's tensors by name, each `[layer, module, ...]`."""
    tensors: dict[str, torch.Tensor] = load_file(store().open(ref) / TENSORS)
    return tensors


def load_evaluation(ref: ArtifactRef) -> dict[str, Any]:
    """Return what the stage `evaluation` wrote."""
    evaluation: dict[str, Any] = json.loads((store().open(ref) / EVALUATION).read_text())
    return evaluation


def load_measured(ref: ArtifactRef) -> dict[str, Any]:
    """Return what `measured.measured` wrote."""
    measured: dict[str, Any] = json.loads((store().open(ref) / MEASURED).read_text())
    return measured
