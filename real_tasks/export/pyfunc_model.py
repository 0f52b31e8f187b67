"""The code of a steered model in MLflow ("model from code"): MLflow runs this file to load it.

It finds its steering spec among the model's artifacts, and the base model where its configuration
says; one that was made here (embedded, or of a GGUF file) lies among the artifacts as well.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from real_tasks.export.completions import completions
from real_tasks.models.hub import local_checkpoint
from real_tasks.models.loading import load_model
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig

DEFAULT_NEW_TOKENS = 50


class SteeredModel(PythonModel):
    """Completes the texts of the column ``prompt`` with the steered model."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the base model and the steering spec."""
        options = ModelConfig.model_validate(context.model_config["model"])
        inside = context.artifacts.get("checkpoint")
        folder = Path(inside) if inside else local_checkpoint(options.path, options.revision)
        self._loaded = load_model(folder, options, ExecutionConfig())
        self._spec = SteeringSpec.load(context.artifacts["spec"])

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[str]:
        """Return a completion for every row; ``params`` may hold ``max_new_tokens``."""
        most = int((params or {}).get("max_new_tokens", DEFAULT_NEW_TOKENS))
        return completions(self._loaded, self._spec, list(model_input["prompt"]), most)


set_model(SteeredModel())
