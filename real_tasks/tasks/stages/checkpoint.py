"""The cached stage that makes the model, or says which of the user's it is."""

from pathlib import Path
from typing import Any

from real_tasks.models.checkpoints import DTYPES
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.hub import local_checkpoint, resolved_revision, unedited
from real_tasks.models.identity import checkpoint_files
from real_tasks.models.loading import LoadedModel, check_model
from real_tasks.models.weights import check_stored_finite
from real_tasks.tasks.cache import progress
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages.models import ModelRef, content_of
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from storage.artifacts.store import sha256_of


@stage("checkpoint", lambda inputs: modules_of(EMBEDDED_MODELS, inputs["model"].path))
def checkpoint(
    out: Path, *, model: ModelConfig, fingerprint: str, execution: ExecutionConfig
) -> dict[str, Any]:
    """Make the embedded model, or note which checkpoint of the user's is meant."""
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


def fingerprint_of(model: ModelConfig) -> str:
    """Return what tells a checkpoint from others: a hash of the files that are read of it.

    An embedded model is known by its parameters.
    """
    if model.path in EMBEDDED_MODELS:
        return ""
    return sha256_of(content_of(local_checkpoint(model.path, model.revision), model))


def model_here(model: ModelConfig, execution: ExecutionConfig) -> LoadedModel:
    """Return a model loaded in this process, without Prefect; made first if it is embedded.

    Raises:
        UserInputError: there is no such model, or it cannot be read.
    """
    made = checkpoint.without_prefect(
        model=model, fingerprint=fingerprint_of(model), execution=execution
    )
    return ModelRef(config=model, checkpoint=made).load(execution)
