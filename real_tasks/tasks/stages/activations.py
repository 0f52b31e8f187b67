"""The cached stages that make the model and read its activations."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from real_tasks.models.checkpoints import DTYPES
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.hub import local_checkpoint, resolved_revision, unedited
from real_tasks.models.identity import checkpoint_files
from real_tasks.models.loading import check_model
from real_tasks.models.weights import check_stored_finite
from real_tasks.reading.activations import activations_at_last_token, check_vocabulary
from real_tasks.reading.prompts import reading_text
from real_tasks.tasks.cache import progress
from real_tasks.tasks.cache.code_version import module_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.dataset import Shard
from real_tasks.tasks.stages.references import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig, ExtractionConfig, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleKind
from storage.artifacts.activations import write_shard
from storage.artifacts.store import sha256_of


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
        files = references.content_of(folder, model)
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
    return sha256_of(references.content_of(local_checkpoint(model.path, model.revision), model))


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
    data, samples = references.load_dataset(shard.dataset), shard.samples()
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
