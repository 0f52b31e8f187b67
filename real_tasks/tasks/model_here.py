"""A model loaded in this process, by whatever names it, for commands that run no flow."""

from transformers.utils import logging as transformers_logging

from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.gguf.files import gguf_file
from real_tasks.models.hub import local_checkpoint
from real_tasks.models.loading import LoadedModel, load_model
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig


def model_here(model: ModelConfig, execution: ExecutionConfig) -> LoadedModel:
    """Return a model, without Prefect; made first, and kept in the home, where it has to be.

    A checkpoint is only loaded: the hash of its files, which reads all of them, tells results of
    runs from others, and what is known of a model in memory is its weights' fingerprint.

    Raises:
        UserInputError: there is no such model, or it cannot be read.
    """
    # What a command says of its progress stays readable.
    transformers_logging.disable_progress_bar()
    if model.path not in EMBEDDED_MODELS and gguf_file(model.path) is None:
        return load_model(local_checkpoint(model.path, model.revision), model, execution)
    return _made(model, execution)


def _made(model: ModelConfig, execution: ExecutionConfig) -> LoadedModel:
    from storage.artifacts.store import prepare_home
    from storage.paths import Home

    prepare_home(Home.current())  # Prefect wants to write there when it is imported
    from real_tasks.experiment.plug_ins import resolved
    from real_tasks.tasks.stages.checkpoint import checkpoint, checkpoint_inputs
    from real_tasks.tasks.stages.models import ModelRef
    from real_tasks.vocabulary.experiment_config import ExperimentConfig

    model = resolved(ExperimentConfig(model=model, baselines=())).model
    made = checkpoint.without_prefect(**checkpoint_inputs(model), execution=execution)
    return ModelRef(config=model, checkpoint=made).load(execution)
