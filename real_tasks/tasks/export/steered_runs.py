"""Finding one way of steering of a run: its spec, its model and what is known of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_tasks.experiment.methods.known import method_names, with_methods
from real_tasks.experiment.yaml_files import load_config
from real_tasks.export.card import UNSTEERED
from real_tasks.models.adapters import base_of
from real_tasks.models.checkpoints import CONFIG as CHECKPOINT_CONFIG
from real_tasks.models.loading import LoadedModel, load_model
from real_tasks.models.weights import read_mapping
from real_tasks.results.grids import SMALLER
from real_tasks.steering.spec import SteeringSpec
from real_tasks.tasks.records.recorded import config_file, finished_experiment, noted, read_record
from real_tasks.tasks.records.run import SPECS
from real_tasks.tasks.stages.models import checkpoint_folder
from real_tasks.tasks.stages.outcome import Outcome
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from storage.paths import Home
from storage.runs.files import run_file
from storage.runs.run import run_folder

_FOLD_AND_SEED = re.compile(r"fold-(\d+)-seed-(-?\d+)")


@dataclass(frozen=True)
class SteeredRun:
    """One way of steering of one run, on one fold with one seed."""

    home: Home
    row: dict[str, Any]
    record: dict[str, Any]
    config: ExperimentConfig
    method: str
    fold: int
    seed: int

    @property
    def spec_folder(self) -> Path:
        """The folder of its steering spec."""
        name = f"fold-{self.fold}-seed-{self.seed}"
        return run_folder(self.home, self.row["run_id"]) / SPECS / self.method / name

    @property
    def spec(self) -> SteeringSpec:
        """Its steering spec."""
        run_id = self.row["run_id"]
        within = self.spec_folder.relative_to(run_folder(self.home, run_id))
        return SteeringSpec.load(run_file(self.home, run_id, within.as_posix()))

    @property
    def outcome(self) -> Outcome:
        """References to what the run made."""
        return noted(self.home, self.row["run_id"], "outcome", Outcome)

    @property
    def checkpoint(self) -> Path:
        """The folder of the base model."""
        return checkpoint_folder(self.outcome.checkpoint, self.config.model)

    @property
    def made_checkpoint(self) -> bool:
        """Whether the checkpoint was made here: an embedded model's, or that of a GGUF file."""
        return self.record["checkpoint"].get("folder") is None

    @property
    def model_type(self) -> str | None:
        """The base model's architecture; None where its configuration is not there any more."""
        kept = self.record["checkpoint"].get("folder")
        folder = Path(kept) if kept else self.checkpoint
        if not folder.is_dir():
            return None
        file = base_of(folder, config_only=True) / CHECKPOINT_CONFIG
        return str(read_mapping(file).get("model_type")) if file.is_file() else None

    def load_model(self) -> LoadedModel:
        """Return the base model, as the run loaded it."""
        return load_model(self.checkpoint, self.config.model, self.config.execution)


def find_steered_run(
    home: Home, run_id: str | None, method: str | None, fold: int, seed: int | None
) -> SteeredRun:
    """Return one way of steering of a run; see `export_run`."""
    row = finished_experiment(home, run_id, "export")
    folder = run_folder(home, row["run_id"])
    config = with_methods(load_config(config_file(home, row["run_id"]), []))
    parts = ("outcome", "versions", "warnings", "device", "source", "checkpoint")
    record = read_record(home, row["run_id"], *parts)
    method = method or config.localizer.name
    _check_method(method, config, folder)
    found = _chosen_seed(folder / SPECS / method, fold, seed)
    return SteeredRun(home, row, record, config, method, fold, found)


def _check_method(method: str, config: ExperimentConfig, folder: Path) -> None:
    steers = sorted(path.name for path in (folder / SPECS).glob("*"))
    if method == UNSTEERED:
        raise UserInputError(
            f"the method {method!r} steers nothing; those of this run that do: {', '.join(steers)}"
        )
    if method not in method_names(config):
        raise UserInputError(
            f"the run has no method {method!r}; those that steer: {', '.join(steers)}"
        )
    if method not in steers:
        raise UserInputError(
            f"the method {method!r} steers nothing in this run: no strength stays under the cap on "
            f"KL (evaluation.max_kl) in any fold; raise it, or {SMALLER}"
        )


def _chosen_seed(folder: Path, fold: int, seed: int | None) -> int:
    names = [_FOLD_AND_SEED.fullmatch(path.name) for path in folder.iterdir()]
    there = sorted((int(name[1]), int(name[2])) for name in names if name)
    seeds = [s for f, s in there if f == fold]
    if seeds and seed is None:
        return seeds[0]
    if seed is not None and seed in seeds:
        return seed
    asked = f"fold {fold}" + ("" if seed is None else f" and seed {seed}")
    raise UserInputError(
        f"the method {folder.name!r} has no steering spec for {asked}; there are: "
        + ", ".join(f"fold {f} seed {s}" for f, s in there)
        + ". Where one is missing, no strength stays under the cap on KL"
    )
