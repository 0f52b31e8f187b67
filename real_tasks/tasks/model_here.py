"""A model loaded in this process, by whatever names it, for commands that run no flow."""

from real_tasks.experiment.plug_ins import resolved
from real_tasks.models.loading import LoadedModel
from real_tasks.tasks.stages.checkpoint import checkpoint, checkpoint_inputs
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.experiment_config import ExperimentConfig


def model_here(model: ModelConfig, execution: ExecutionConfig) -> LoadedModel:
    """Return a model, without Prefect; made first, and kept in the home, where it has to be.

    Raises:
        UserInputError: there is no such model, or it cannot be read.
    """
    model = resolved(ExperimentConfig(model=model, baselines=())).model
    made = checkpoint.without_prefect(**checkpoint_inputs(model), execution=execution)
    return ModelRef(config=model, checkpoint=made).load(execution)
