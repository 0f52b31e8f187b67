"""Models in MLflow's registry: logged as code with artifacts, never as a pickle."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from storage.paths import Home
from storage.tracking.tracker import Tracker


@dataclass(frozen=True)
class CodeModel:
    """A text model that MLflow runs from a file of code.

    It takes the text column ``prompt`` and gives one text a row; its parameter is
    ``max_new_tokens``.

    Attributes:
        name: registered name; a second model of that name is its next version.
        code: the file.
        packages: folders of Python packages that the code needs and no package index has.
        distributions: names of installed distributions that it needs, in their present versions.
        artifacts: files and folders by the names under which the code finds them.
        config: values that the code reads.
        max_new_tokens: default of the parameter.
    """

    name: str
    code: Path
    packages: Sequence[Path]
    distributions: Sequence[str]
    artifacts: Mapping[str, Path]
    config: Mapping[str, Any]
    max_new_tokens: int = 50


def log_code_model(home: Home, run: str, model: CodeModel) -> str:
    """Record a model under the MLflow run ``run``; return its ``models:/name/version``."""
    Tracker(home).initialise()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        Schema([ColSpec("string", "prompt")]),
        Schema([ColSpec("string", "completion")]),
        ParamSchema([ParamSpec("max_new_tokens", "long", model.max_new_tokens)]),
    )
    client = mlflow.MlflowClient(home.mlflow_uri)
    # Made here, or MLflow would put it into its default experiment, and that into this folder.
    logged = client.create_logged_model(
        client.get_run(run).info.experiment_id, name=model.name, source_run_id=run
    )
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(home.mlflow_uri)
    try:
        info = Model.log(
            None,
            flavor=mlflow.pyfunc,
            run_id=run,
            model_id=logged.model_id,
            registered_model_name=model.name,
            python_model=str(model.code),
            code_paths=[str(package) for package in model.packages],
            artifacts={name: str(path) for name, path in model.artifacts.items()},
            model_config=dict(model.config),
            pip_requirements=[requirement(name) for name in model.distributions],
            signature=signature,
        )
    finally:
        mlflow.set_tracking_uri(before)
    return f"models:/{model.name}/{info.registered_model_version}"


def requirement(distribution: str) -> str:
    """Return the pip requirement of an installed distribution, without a build's local tag."""
    version = metadata.version(distribution).partition("+")[0]
    return f"{distribution}=={version}"
