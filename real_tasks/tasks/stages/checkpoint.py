"""The cached stage that makes the model, or says which of the user's it is."""

from pathlib import Path
from typing import Any

import torch

from real_tasks.models.checking import check_model
from real_tasks.models.checkpoints import DTYPES
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.gguf.conversion import convert
from real_tasks.models.gguf.files import SUFFIX, gguf_file
from real_tasks.models.hub import local_checkpoint, resolved_revision, unedited
from real_tasks.models.identity import checkpoint_files
from real_tasks.models.weight_checks import check_stored_finite
from real_tasks.tasks.cache import progress
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages.models import checksum_of, content_of
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from storage.artifacts.store import sha256_of


@stage("checkpoint", lambda inputs: modules_of(EMBEDDED_MODELS, inputs["model"].path))
def checkpoint(
    out: Path, *, model: ModelConfig, fingerprint: str, execution: ExecutionConfig
) -> dict[str, Any]:
    """Make the embedded model, or that of a GGUF file, or note which checkpoint is meant."""
    file = None if model.path in EMBEDDED_MODELS else gguf_file(model.path)
    if file is not None:
        return _of_gguf(file, out, fingerprint)
    if model.path not in EMBEDDED_MODELS:
        folder = local_checkpoint(model.path, model.revision).absolute()
        check_model(model)
        check_stored_finite(checkpoint_files(folder).values(), DTYPES[model.dtype])
        (out / "fingerprint").write_text(fingerprint)
        files = content_of(folder, model)
        if sha256_of(files) != fingerprint:
            raise UserInputError(f"{folder} changes while it is read; run again when it is whole")
        revision = resolved_revision(folder) if unedited(folder, files) else None
        return {"folder": str(folder), "revision": revision, "files": files}
    use_threads(execution, alone=True)
    embedded = EMBEDDED_MODELS.made(model.path, model.params)
    return embedded.build(out, lambda done, total: progress.report("checkpoint", done, total))


def _of_gguf(file: Path, out: Path, fingerprint: str) -> dict[str, Any]:
    convert(file, out)
    check_stored_finite(checkpoint_files(out).values(), torch.float32)
    if checksum_of(file) != fingerprint:
        raise UserInputError(f"{file} changes while it is read; run again when it is whole")
    return {"gguf": file.name, "sha256": fingerprint}


class _GgufConfig(ModelConfig):
    """A GGUF file, whose checkpoint is the same whatever it is called and however it is loaded."""

    @property
    def identity(self) -> str:
        """What a result depends on beside the fingerprint."""
        return SUFFIX


def checkpoint_inputs(model: ModelConfig) -> dict[str, Any]:
    """Return what `checkpoint` is called with, but for where it runs.

    A checkpoint is told from others by a hash of the files that are read of it, a GGUF file by its
    SHA-256, an embedded model by its parameters.
    """
    if model.path in EMBEDDED_MODELS:
        return {"model": model, "fingerprint": ""}
    file = gguf_file(model.path)
    if file is not None:
        by_content = _GgufConfig.model_validate(model.model_dump())
        return {"model": by_content, "fingerprint": checksum_of(file)}
    folder = local_checkpoint(model.path, model.revision)
    return {"model": model, "fingerprint": sha256_of(content_of(folder, model))}


def fingerprint_of(model: ModelConfig) -> str:
    """Return what tells a checkpoint from others; see `checkpoint_inputs`."""
    return str(checkpoint_inputs(model)["fingerprint"])
