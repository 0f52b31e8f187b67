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

from real_tasks.models.hub import local_checkpoint
from real_tasks.models.identity import checkpoint_content
from real_tasks.models.loading import LoadedModel, load_model
from real_tasks.questions.folds import split
from real_tasks.tasks.cache.stage import store
from real_tasks.vocabulary.config import DataConfig, ExecutionConfig, Frozen, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData, FoldSplit, LocalizerResult, ModuleScore
from storage.artifacts.activations import read_layer
from storage.artifacts.store import ArtifactRef
from storage.paths import Home
from storage.runs.verdicts import VerdictMemory

DATASET = "dataset.json"
SCORES = "scores.json"
EVIDENCE = "evidence.safetensors"
DIRECTIONS = "directions.safetensors"
EVALUATION = "evaluation.json"
SPEC = "spec"
MEASURED = "measured.json"
MODEL_ID_LENGTH = 16
"""Hexadecimal digits of a model's digest that tables show."""

_dataset_type = TypeAdapter(BehaviourData)
_scores_type = TypeAdapter(tuple[ModuleScore, ...])
_loading = threading.Lock()


class ModelRef(Frozen):
    """A model: its checkpoint, and how it is loaded."""

    config: ModelConfig
    checkpoint: ArtifactRef

    @property
    def columns(self) -> dict[str, str]:
        """What tables say of it: its name, and what tells it from others of that name."""
        return {"model": self.config.name, "model_id": self.checkpoint.digest[:MODEL_ID_LENGTH]}

    def load(self, execution: ExecutionConfig) -> LoadedModel:
        """Return it with modules and hooks of its own; the weights are loaded once a process."""
        with _loading:
            folder = str(checkpoint_folder(self.checkpoint, self.config))
            where = (execution.device, execution.device_map)
            how = self.config.model_dump_json()
            return _loaded(folder, self.checkpoint.digest, how, *where).private_copy()


class Fold(Frozen):
    """One fold of a data set; without an index all of its questions are test questions."""

    dataset: ArtifactRef
    config: DataConfig
    index: int | None

    def load(self) -> tuple[BehaviourData, FoldSplit]:
        """Return the data, and which of its questions are for what."""
        data = load_dataset(self.dataset)
        if self.index is None:
            return data, FoldSplit(train=(), validation=(), test=tuple(range(len(data.questions))))
        return data, split(len(data.questions), self.index, self.config)


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


def content_of(folder: Path, config: ModelConfig) -> dict[str, str]:
    """Return the checksum of every file that is read of a checkpoint, remembered in the home."""
    memory = VerdictMemory(Home.current())
    return checkpoint_content(folder, config.trust_remote_code, memory)


def checkpoint_folder(ref: ArtifactRef, config: ModelConfig) -> Path:
    """Return the folder of the checkpoint: the artifact itself, or where its very files lie here.

    The artifact may have been made on another machine, where the checkpoint lies elsewhere.

    Raises:
        UserInputError: the files have changed since, or are nowhere.
    """
    facts = store().facts(ref)
    if facts.get("folder") is None:
        return store().open(ref)
    kept, expected = Path(facts["folder"]), facts.get("files")
    if expected is None:  # made before files were recorded; the weights tell later
        return kept if kept.is_dir() else local_checkpoint(config.path, config.revision)
    if kept.is_dir() and content_of(kept, config) == expected:
        return kept
    found = local_checkpoint(config.path, config.revision)
    there = content_of(found, config)
    if there == expected:
        return found
    differ = sorted(n for n in there.keys() | expected if there.get(n) != expected.get(n))
    raise UserInputError(
        f"the checkpoint {found} is another one than the run began with: {', '.join(differ)} "
        "changed since; put the former files back, or run the experiment again with these"
    )


@lru_cache(maxsize=1)
def _loaded(
    folder: str, _digest: str, config: str, device: str, device_map: str | None
) -> LoadedModel:
    execution = ExecutionConfig(device=device, device_map=device_map)
    return load_model(folder, ModelConfig.model_validate_json(config), execution)


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


def load_evidence(ref: ArtifactRef) -> dict[str, torch.Tensor]:
    """Return the evidence of one shard."""
    evidence: dict[str, torch.Tensor] = load_file(store().open(ref) / EVIDENCE)
    return evidence


def load_directions(ref: ArtifactRef) -> tuple[torch.Tensor, torch.Tensor]:
    """Return directions `[layer, module, d]` and sigmas `[layer, module]`."""
    tensors = load_file(store().open(ref) / DIRECTIONS)
    return tensors["directions"], tensors["sigmas"]


def load_evaluation(ref: ArtifactRef) -> dict[str, Any]:
    """Return what the stage `evaluation` wrote."""
    evaluation: dict[str, Any] = json.loads((store().open(ref) / EVALUATION).read_text())
    return evaluation


def load_measured(ref: ArtifactRef) -> dict[str, Any]:
    """Return what `measured.measured` wrote."""
    measured: dict[str, Any] = json.loads((store().open(ref) / MEASURED).read_text())
    return measured
