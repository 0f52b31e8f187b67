"""The cached stage that reads a model's activations."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from real_tasks.reading.answers_read import activations_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.dataset import Shard
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig, ExtractionConfig
from real_tasks.vocabulary.types import ModuleKind, Reading
from storage.artifacts.activations import write_shard


@stage("activations")
def activations(
    out: Path,
    *,
    model: ModelRef,
    shard: Shard,
    kind: ModuleKind,
    config: ExtractionConfig,
    execution: ExecutionConfig,
    reading: Reading = "last",
) -> dict[str, Any]:
    """Read the activations of one shard of samples, all layers in one pass."""
    use_threads(execution)
    data, samples = references.load_dataset(shard.dataset), shard.samples()
    loaded = model.load(execution)
    pairs = [(sample.question, sample.answer) for sample in samples]
    largest = float(np.finfo(config.dtype).max)
    values = activations_of(loaded, data, pairs, config.batch_tokens, kind, reading, largest)
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
