"""Steered models in MLflow's registry."""

import re
from importlib import resources
from pathlib import Path

from real_tasks.tasks.export.steered_runs import SteeredRun
from storage.tracking.model_registry import CodeModel, log_code_model
from storage.tracking.tracker import EXPERIMENT, Scalar, Tracker

SERVING_CODE = "pyfunc_model.py"
_NEEDED_TO_SERVE = (
    "torch",
    "transformers",
    "safetensors",
    "huggingface-hub",
    "jaxtyping",
    "numpy",
    "pandas",
    "pydantic",
)


def log_steered_model(run: SteeredRun) -> str:
    """Register a steered model in MLflow; return its ``models:/name/version``.

    It belongs to an MLflow run of its own, a child of the experiment's where that has one.
    """
    artifacts = {"spec": run.spec_folder}
    options = run.config.model
    if run.made_checkpoint:
        artifacts["checkpoint"] = run.checkpoint
    elif Path(options.path).expanduser().is_dir():
        options = options.model_copy(update={"path": str(run.checkpoint)})
    package = Path(str(resources.files("real_tasks")))
    name = re.sub(r"[^\w-]+", "-", f"{run.row['model']}-{run.row['behaviour']}-{run.method}")
    model = CodeModel(
        name=name,
        code=package / "export" / SERVING_CODE,
        packages=[package],
        distributions=_NEEDED_TO_SERVE,
        artifacts=artifacts,
        config={"model": options.model_dump(mode="json")},
    )
    return log_code_model(run.home, _mlflow_run(run), model)


def _mlflow_run(run: SteeredRun) -> str:
    tracker, parent = Tracker(run.home), run.row["mlflow_run_id"]
    params: dict[str, Scalar] = {"method": run.method, "fold": run.fold, "seed": run.seed}
    tags = {"run_id": run.row["run_id"]}
    if parent is not None:
        return tracker.child_run(parent, f"export {run.method}", params, {}, tags)
    made = tracker.start_run(
        EXPERIMENT, f"export {run.method} of {run.row['run_id']}", params, tags
    )
    tracker.finish(made)
    return made
