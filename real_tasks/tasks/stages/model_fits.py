"""The cached stage that finds operators' tensors with the model itself."""

from pathlib import Path
from typing import Any

from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.models.loading import LoadedModel
from real_tasks.questions.samples import rows_of_questions, samples_of
from real_tasks.reading.prompts import answered_text, prompt_text
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.model_access import Text
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages.fits import fitted
from real_tasks.tasks.stages.folds import Fold
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig, PlugIn
from real_tasks.vocabulary.types import ModuleKind
from storage.artifacts.store import ArtifactRef


@stage("model_fits", lambda inputs: modules_of(FITTERS, inputs["fitter"].name))
def model_fits(
    out: Path,
    *,
    fitter: PlugIn,
    model: ModelRef,
    fold: Fold,
    activations: tuple[ArtifactRef, ...],
    kind: ModuleKind,
    n_layers: int,
    seed: int,
    batch_tokens: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Find the tensors of every module by a fitter that asks for the model."""
    use_threads(execution)
    loaded = model.load(execution)
    further = {"model": ModelHandle(loaded, batch_tokens), "texts": _texts(loaded, fold)}
    facts = fitted(out, fitter, fold, activations, kind, n_layers, seed, further)
    return {**facts, "device": str(loaded.device)}


def _texts(loaded: LoadedModel, fold: Fold) -> tuple[Text, ...]:
    """Return the training samples' texts, as the evaluation puts them."""
    data, split = fold.load()
    samples = samples_of(data)
    chosen = [samples[row] for row in rows_of_questions(samples, split.train)]
    return tuple(
        Text(
            prompt_text(loaded, data, one.question),
            answered_text(loaded, data, one.question, one.answer),
        )
        for one in chosen
    )
