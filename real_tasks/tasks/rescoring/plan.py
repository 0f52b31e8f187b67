"""Before a re-scoring: its baseline, the scoring to compare with, and whether anything is new."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from real_tasks.experiment.methods.known import known_methods, method_names, rankings_of
from real_tasks.experiment.methods.method import Method
from real_tasks.experiment.prepared import Prepared, completed, handed_over, prepare
from real_tasks.experiment.yaml_files import load_config
from real_tasks.localizers import LOCALIZERS
from real_tasks.results.scores import module_of, rows_of
from real_tasks.tasks.cache.stage import Stage, store
from real_tasks.tasks.records.recorded import config_file, finished_experiment, noted
from real_tasks.tasks.records.run import CONFIG
from real_tasks.tasks.stages import dataset, references
from real_tasks.tasks.stages.activations import activations
from real_tasks.tasks.stages.checkpoint import checkpoint, checkpoint_inputs, fingerprint_of
from real_tasks.tasks.stages.effects import effects
from real_tasks.tasks.stages.folds import Fold
from real_tasks.tasks.stages.measured import measured
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.tasks.stages.outcome import MethodEvaluation, Outcome
from real_tasks.tasks.stages.scores import scores
from real_tasks.vocabulary.config import Frozen, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.rescore_config import RescoreConfig
from storage.artifacts.store import ArtifactRef
from storage.errors import StorageError
from storage.paths import Home
from storage.runs.run import find_run, run_folder
from storage.tables.parquet import read_rows


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

    def measuring(
        self, model: ModelRef, dataset: ArtifactRef, item: MethodEvaluation
    ) -> dict[str, Any]:
        """Return the inputs of `measured`: an evaluation's steering, on all questions of the data.

        The fold on which it was found is of the baseline's data; no change reaches their split.
        """
        split = self.experiment.data
        return {
            "model": model,
            "evaluation": item.evaluation,
            "source": Fold(dataset=self.baseline.dataset, config=split, index=item.fold),
            "target": Fold(dataset=dataset, config=split, index=None),
            "config": self.experiment.evaluation,
        }


class PreparedRescoring(NamedTuple):
    """A re-scoring that can start: what it starts from, and the experiment that is scored again."""

    plan: Rescoring
    prepared: Prepared

    @property
    def config(self) -> RescoreConfig:
        """The configuration, which names the baseline and the method."""
        return self.plan.config


def deployed_steering(plan: Rescoring) -> list[MethodEvaluation]:
    """Return the baseline's evaluations of the method, of folds and seeds where it steers."""
    mine = [item for item in plan.baseline.evaluations if item.method == plan.method]
    return [item for item in mine if (store().open(item.evaluation) / references.SPEC).is_dir()]


def rescoring_for(config: RescoreConfig) -> PreparedRescoring:
    """Return what was handed over with the call of the flow, or else plan the re-scoring."""
    return handed_over(PreparedRescoring) or plan_rescoring(config)


def plan_rescoring(config: RescoreConfig) -> PreparedRescoring:
    """Find the baseline and the scoring to compare with, and say what is new; loads no model.

    Raises:
        StorageError: no such run, or what it made is gone.
        UserInputError: the run is no experiment's, has no such way of steering, or the changes do
            not fit it.
    """
    home = Home.current()
    run_id = str(finished_experiment(home, config.baseline, "score again")["run_id"])
    baseline = noted(home, run_id, "outcome", Outcome)
    settings = config_file(home, run_id)
    _inputs(baseline.dataset, run_id, run_id)  # or an error that says that it is gone
    data = references.load_dataset(baseline.dataset)
    whole = completed(load_config(settings, list(config.changes)), data)
    method = config.method or whole.localizer.name
    if method not in method_names(whole):
        raise UserInputError(
            f"the run {run_id} did not evaluate the method {method!r}; it has "
            f"{', '.join(method_names(whole))}"
        )
    prepared = prepare(rescored_experiment(whole, method))
    compared_run_id = _last_rescoring(home, run_id, method) if config.against == "last" else None
    compared = Rescored(outcome=baseline, measured=())
    if compared_run_id:
        find_run(home, compared_run_id)  # which fetches its folder, where another machine made it
        compared = noted(home, compared_run_id, "rescored", Rescored)
    plan = Rescoring(
        config=config.model_copy(update={"baseline": run_id, "method": method}),
        whole=whole,
        experiment=prepared.config,
        method=method,
        baseline_run_id=run_id,
        baseline=baseline,
        compared_run_id=compared_run_id or run_id,
        compared=compared,
    )
    _check_shape(home, plan, prepared)
    plan = plan.model_copy(update={"changed": tuple(what_is_new(plan, prepared))})
    return PreparedRescoring(plan, prepared)


def rescored_experiment(config: ExperimentConfig, method: str) -> ExperimentConfig:
    """Return the experiment with nothing but its localizer, and the method and what it needs.

    Raises:
        UserInputError: the method is unknown, or steers nothing.
    """
    known = known_methods(config)
    if method not in known or known[method].fitter is None:
        steering = sorted(name for name in known if known[name].fitter is not None)
        raise UserInputError(
            f"the way of steering {method!r} is not in the baseline, or steers nothing; expected "
            f"one of {', '.join(steering)}"
        )
    its = known[method]
    kinds = {its.localizer: its.kind} if its.localizer else {}
    needed = tuple(one for one in config.baselines if kinds.get(one.name) == config.module_kind)
    return config.model_copy(update={"methods": ("unsteered", method), "baselines": needed})


def baseline_label(config: RescoreConfig) -> str:
    """Return model, behaviour and seeds of the baseline; where there is none, what was asked for.

    It names a flow run that will then say, better than a name can, that there is no baseline.
    """
    home = Home.current()
    try:
        run_id = find_run(home, config.baseline, "experiment")["run_id"]
        return load_config(config_file(home, run_id), list(config.changes)).label
    except (StorageError, UserInputError):
        return config.baseline or "last experiment"


def what_is_new(plan: Rescoring, prepared: Prepared) -> Iterator[str]:
    """Name what differs from the compared scoring: data, model, or else the code of a stage.

    Raises:
        StorageError: what that scoring made is gone.
    """
    outcome, experiment = plan.compared.outcome, plan.experiment
    refs, source = (outcome.dataset, outcome.checkpoint), dataset.source_of(prepared.data)
    inputs = {ref.kind: _inputs(ref, plan.baseline_run_id, plan.compared_run_id) for ref in refs}
    known = ModelConfig.model_validate(inputs["checkpoint"]["model"])
    fingerprint = fingerprint_of(experiment.model)
    differs = {
        "data": inputs["dataset"]["source"]["digest"] != source.digest,
        "model": (known, inputs["checkpoint"]["fingerprint"]) != (experiment.model, fingerprint),
    }
    found = [name for name, new in differs.items() if new]
    if not found and any(
        step.key(given) != ref.key for step, given, ref in _one_of_each(plan, source)
    ):
        found = ["code"]
    yield from found


def _one_of_each(
    plan: Rescoring, source: dataset.Source
) -> Iterator[tuple[Stage, dict[str, Any], ArtifactRef]]:
    """Yield a task of every stage, with the inputs that it would get now, and what it made then.

    Data and model are known to be the same, so that a task's key differs only if its code does.
    """
    outcome, experiment = plan.compared.outcome, plan.experiment
    model = ModelRef(config=experiment.model, checkpoint=outcome.checkpoint)
    yield dataset.dataset, {"source": source}, outcome.dataset
    yield checkpoint, checkpoint_inputs(experiment.model), outcome.checkpoint
    shard = dataset.sample_shards(outcome.dataset, experiment.extraction)[0]
    for ranking in rankings_of(experiment):
        localizer = LOCALIZERS[ranking.localizer.name]
        if localizer.reading != "last" or localizer.beside:
            continue  # where its activations lie is not kept with the outcome
        refs = outcome.activations[ranking.kind]
        read = {"model": model, "shard": shard, "kind": ranking.kind}
        yield activations, read | {"config": experiment.extraction}, refs[0]
        which = (ranking.localizer.name, ranking.kind)
        item = next(one for one in outcome.scores if (one.localizer, one.kind) == which)
        given = {
            "localizer": ranking.localizer,
            "fold": Fold(dataset=outcome.dataset, config=experiment.data, index=item.fold),
            "activations": refs,
            "kind": ranking.kind,
            "layer": 0,
            "seed": item.seed,
        }
        asking = {"model": model, "batch_tokens": experiment.evaluation.batch_tokens}
        asks = localizer.uses_effects or localizer.uses_weights
        step = effects if asks else scores
        yield step, given | (asking if asks else {}), item.shards[0]
    for one, done in zip(deployed_steering(plan), plan.compared.measured, strict=False):
        yield measured, plan.measuring(model, outcome.dataset, one), done.measured


def _inputs(ref: ArtifactRef, baseline_run_id: str, made_by: str) -> dict[str, Any]:
    try:
        inputs: dict[str, Any] = store().manifest(ref)["inputs"]
    except (OSError, StorageError) as error:
        settings = run_folder(Home.current(), baseline_run_id) / CONFIG
        raise StorageError(
            f"what the run {made_by} made ({ref.kind} {ref.key[:12]}) is gone, so "
            f"that nothing can be compared with it; `real run {settings}` makes a baseline anew"
        ) from error
    return inputs


def _last_rescoring(home: Home, baseline_run_id: str, method: str) -> str | None:
    """Return the last completed re-scoring of that baseline which found something new."""
    runs = [row for row in read_rows(home, "runs") if row["status"] == "completed"]
    scored = {
        row["run_id"]
        for row in read_rows(home, "score_drift")
        if row["changed"] and (row["baseline_run_id"], row["method"]) == (baseline_run_id, method)
    }
    mine = [row for row in runs if row["run_id"] in scored]
    return max(mine, key=lambda row: row["started_at"])["run_id"] if mine else None


def _check_shape(home: Home, plan: Rescoring, prepared: Prepared) -> None:
    localizer, kind = plan.experiment.localizer.name, plan.experiment.module_kind
    rows = read_rows(home, "module_scores")
    mine = [row for row in rows if row["run_id"] == plan.compared_run_id]
    before = {module_of(row) for row in rows_of(mine, localizer, kind)}
    now = set(prepared.shape.modules(kind))
    if before != now:
        raise UserInputError(
            f"the model {plan.experiment.model.path!r} has {len(now)} modules of the kind "
            f"{kind!r}, but the run {plan.compared_run_id} scored "
            f"{len(before)}{'' if len(before) != len(now) else ' others'}; a re-scoring needs a "
            "model of the same shape, and a new run of the experiment any other"
        )
