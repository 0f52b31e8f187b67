"""The experiment: from questions to a steered model, a report and rows to query."""

import os

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.fan_out import alone, fan_out
from real_tasks.checks import check_experiment, resolved, shape_of
from real_tasks.config import ExperimentConfig, Frozen
from real_tasks.localizers import LOCALIZERS
from real_tasks.methods import Method, methods_of
from real_tasks.tasks import records, stages
from real_tasks.tasks.outcome import MethodEvaluation, Outcome, Scores
from real_tasks.tasks.pictures import pictures
from real_tasks.tasks.records import Run, running
from real_tasks.tasks.reporting import report
from storage.artifacts import ArtifactRef, prepare_home
from storage.paths import Home

NONE = ("", 0, 0)
"""Key of no direction."""


class Summary(Frozen):
    """Where the result of an experiment is."""

    run_id: str
    report: str
    stages: list[dict[str, str | int | float]]
    warnings: list[str]


@flow(
    name="experiment",
    description="Find the modules that carry a behaviour, steer through them, and measure.",
    flow_run_name="{config.model.path}-{config.behaviour.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=os.cpu_count()),  # type: ignore[arg-type]
)
def experiment(config: ExperimentConfig) -> Summary:
    """Run the whole pipeline; stages done before are taken from the cache."""
    config = resolved(config)
    check_experiment(config)
    prepare_home(Home.current())
    with running(config) as run:
        tracking = records.start_tracking.submit(run.run_id, config, run.row["git_commit"])
        checkpoint, dataset = prepare(run)
        activations = extract(run, checkpoint, dataset)
        scores = localize(run, dataset, activations)
        evaluations = evaluate(run, checkpoint, dataset, activations, scores)
        outcome = Outcome(
            checkpoint=checkpoint,
            dataset=dataset,
            activations=activations,
            scores=scores,
            evaluations=evaluations,
        )
        drawn = alone(
            run,
            pictures,
            config=config.without_execution(),
            outcome=outcome,
            execution=config.execution,
        )
        run.row["mlflow_run_id"] = tracking.result()
        return publish(run, outcome, drawn)


def prepare(run: Run) -> tuple[ArtifactRef, ArtifactRef]:
    """Return the checkpoint, made if it is an embedded model, and the behaviour's data."""
    config = run.config
    data = alone(run, stages.dataset, behaviour=config.behaviour, config=config.data)
    checkpoint = alone(
        run,
        stages.checkpoint,
        model=config.model,
        fingerprint=stages.fingerprint_of(config.model),
        execution=config.execution,
    )
    return checkpoint, data


def extract(run: Run, checkpoint: ArtifactRef, dataset: ArtifactRef) -> tuple[ArtifactRef, ...]:
    """Read the activations, a task a shard of samples."""
    config = run.config
    inputs = {
        "model": config.model,
        "checkpoint": checkpoint,
        "dataset": dataset,
        "config": config.extraction,
        "execution": config.execution,
    }
    n_shards = stages.n_sample_shards(dataset, config.extraction)
    shards = [(f"samples-{i}", {**inputs, "shard": i}) for i in range(n_shards)]
    return tuple(fan_out(run, stages.activations, shards))


def localize(
    run: Run, dataset: ArtifactRef, activations: tuple[ArtifactRef, ...]
) -> tuple[Scores, ...]:
    """Score all modules with every localizer, fold and seed, a task a layer."""
    config = run.config
    n_layers = shape_of(config).n_layers
    settings = [
        (localizer, fold, seed)
        for localizer in (config.localizer, *config.baselines)
        for fold in range(config.data.n_folds)
        for seed in seeds_of(LOCALIZERS[localizer.name].stochastic, config)
    ]
    inputs = {
        "dataset": dataset,
        "activations": activations,
        "config": config.data,
        "execution": config.execution,
    }
    shards = [
        (
            f"{localizer.name}-fold-{fold}-seed-{seed}-layer-{layer}",
            {**inputs, "localizer": localizer, "fold": fold, "seed": seed, "layer": layer},
        )
        for localizer, fold, seed in settings
        for layer in range(n_layers)
    ]
    refs = fan_out(run, stages.scores, shards)
    return tuple(
        Scores(
            localizer=localizer.name,
            fold=fold,
            seed=seed,
            shards=tuple(refs[place * n_layers : (place + 1) * n_layers]),
        )
        for place, (localizer, fold, seed) in enumerate(settings)
    )


def find_directions(
    run: Run,
    dataset: ArtifactRef,
    activations: tuple[ArtifactRef, ...],
    wanted: list[tuple[str, int, int]],
) -> dict[tuple[str, int, int], ArtifactRef]:
    """Return the directions of all heads for every (direction, fold, seed) wanted."""
    config = run.config
    inputs = {
        "dataset": dataset,
        "activations": activations,
        "config": config.data,
        "n_layers": shape_of(config).n_layers,
        "execution": config.execution,
    }
    shards = [
        (
            f"{name}-fold-{fold}-seed-{seed}",
            {**inputs, "direction": name, "fold": fold, "seed": seed},
        )
        for name, fold, seed in wanted
    ]
    return dict(zip(wanted, fan_out(run, stages.directions, shards), strict=True))


def evaluate(
    run: Run,
    checkpoint: ArtifactRef,
    dataset: ArtifactRef,
    activations: tuple[ArtifactRef, ...],
    scores: tuple[Scores, ...],
) -> tuple[MethodEvaluation, ...]:
    """Tune and test every method on every fold, with every seed that can change its outcome."""
    config = run.config
    settings = [
        (method, fold, seed)
        for method in methods_of(config)
        for fold in range(config.data.n_folds)
        for seed in seeds_of(method.seeded, config)
    ]
    needed = dict.fromkeys(direction_of(*setting, config) for setting in settings)
    directions = find_directions(run, dataset, activations, [key for key in needed if key])
    inputs = {
        "model": config.model,
        "checkpoint": checkpoint,
        "dataset": dataset,
        "data_config": config.data,
        "config": config.evaluation,
        "execution": config.execution,
    }
    shards = [
        (
            f"{method.name}-fold-{fold}-seed-{seed}",
            {
                **inputs,
                "method": method,
                "fold": fold,
                "scores": scores_for(scores, method, fold, seed),
                "directions": directions.get(direction_of(method, fold, seed, config) or NONE),
            },
        )
        for method, fold, seed in settings
    ]
    refs = fan_out(run, stages.evaluation, shards)
    return tuple(
        MethodEvaluation(method=method.name, fold=fold, seed=seed, evaluation=ref)
        for (method, fold, seed), ref in zip(settings, refs, strict=True)
    )


def publish(run: Run, outcome: Outcome, drawn: ArtifactRef) -> Summary:
    """Write tables, run folder and report, and record all of it in MLflow."""
    warnings = records.publish_tables(run.run_id, run.config, outcome)
    records.fill_run_folder(run.run_id, outcome, drawn, run.stages, warnings)
    path = report(run.run_id)
    records.record_in_mlflow(run.run_id, run.row["mlflow_run_id"], run.config, outcome)
    return Summary(run_id=run.run_id, report=path, stages=run.stages, warnings=warnings)


def seeds_of(seeded: bool, config: ExperimentConfig) -> tuple[int, ...]:
    """Return the seeds to go through: one where the seed changes nothing."""
    return config.seeds if seeded else config.seeds[:1]


def direction_of(
    method: Method, fold: int, seed: int, config: ExperimentConfig
) -> tuple[str, int, int] | None:
    """Return which directions the method needs; only random ones depend on the seed."""
    if method.direction is None:
        return None
    return method.direction, fold, seed if method.direction == "random" else config.seeds[0]


def scores_for(
    scores: tuple[Scores, ...], method: Method, fold: int, seed: int
) -> tuple[ArtifactRef, ...]:
    """Return the scores that rank the method's modules; none where it has no localizer."""
    mine = {s.seed: s.shards for s in scores if (s.localizer, s.fold) == (method.localizer, fold)}
    return mine.get(seed) or next(iter(mine.values()), ())
