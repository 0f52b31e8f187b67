"""A user's terminal: the command, its environment, the settings of a run of seconds."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REAL = [sys.executable, "-m", "flows.cli"]
SMALL = (
    "model.params.steps=1",
    "data.limit=16",
    "evaluation.neutral_texts=4",
    "seeds=[0]",
    "methods=[unsteered, real]",
    "baselines=[]",
    "evaluation.top_k=[2]",
    "evaluation.alphas=[1.0]",
    "evaluation.max_new_tokens=4",
    "evaluation.bootstrap_samples=50",
    "localizer.params.epochs=1",
    "localizer.params.prior_epochs=1",
    "localizer.params.cross_folds=2",
    "localizer.params.bootstrap_samples=50",
)
RUN = ("run", *(part for setting in SMALL for part in ("--set", setting)))


def environment(home: Path, **further: str) -> dict[str, str]:
    """The environment of a terminal in which a home is the current one.

    It has nothing that other tests set for Prefect or MLflow.
    """
    foreign = ("PREFECT_", "MLFLOW_", "REAL_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    ours = {"REAL_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return own | ours | {"OMP_NUM_THREADS": "1"} | further
