"""What a re-scoring starts from and makes."""

from real_tasks.experiment.methods import Method, known_methods
from real_tasks.tasks.cache.stage import store
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.folds import Fold
from real_tasks.tasks.stages.outcome import MethodEvaluation, Outcome
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.rescore_config import RescoreConfig
from storage.artifacts.store import ArtifactRef


class Measured(Frozen):
    """The deployed steering of a fold and seed, measured on questions that it never saw."""

    fold: int
    seed: int
    measured: ArtifactRef


class Rescored(Frozen):
    """References to what a re-scoring made; its outcome has no evaluations."""

    outcome: Outcome
    measured: tuple[Measured, ...]


class Rescoring(Frozen):
    """What a re-scoring starts from.

    Attributes:
        config: what was asked for.
        whole: the baseline's configuration with the changes.
        experiment: of that, what is scored again.
        method: the way of steering in use.
        baseline: what the baseline's run made.
        compared: what the scoring to compare with made.
        changed: what is new since then: data, model, code; empty: nothing.
    """

    config: RescoreConfig
    whole: ExperimentConfig
    experiment: ExperimentConfig
    method: str
    baseline_run_id: str
    baseline: Outcome
    compared_run_id: str
    compared: Rescored
    changed: tuple[str, ...] = ()

    @property
    def steered(self) -> Method:
        """The way of steering in use."""
        return known_methods(self.whole)[self.method]

    @property
    def baseline_folds(self) -> tuple[Fold, ...]:
        """The folds on which the deployed steering was found; no change reaches their split."""
        split, dataset = self.experiment.data, self.baseline.dataset
        return tuple(Fold(dataset=dataset, config=split, index=i) for i in range(split.n_folds))


def deployed_steering(plan: Rescoring) -> list[MethodEvaluation]:
    """Return the baseline's evaluations of the method, of folds and seeds where it steers."""
    mine = [item for item in plan.baseline.evaluations if item.method == plan.method]
    return [item for item in mine if (store().open(item.evaluation) / references.SPEC).is_dir()]
