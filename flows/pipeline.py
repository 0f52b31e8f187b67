"""The steps that flows chain: each fans out over shards and returns references."""

from collections.abc import Iterable
from typing import Any

from flows.fan_out import alone, fan_out
from real_tasks.checks import shape_of
from real_tasks.config import ExperimentConfig
from real_tasks.localizers import LOCALIZERS
from real_tasks.methods import Method, Ranking, methods_of, rankings_of
from real_tasks.tasks import data, stages
from real_tasks.tasks.caching import Stage
from real_tasks.tasks.evaluating import evaluation
from real_tasks.tasks.loading import Fold, ModelRef
from real_tasks.tasks.outcome import Activations, MethodEvaluation, Outcome, Scores
from real_tasks.tasks.records import Run
from real_tasks.types import ModuleKind
from storage.artifacts import ArtifactRef

DirectionKey = tuple[str, ModuleKind, int, int]
"""Direction, kind of module, fold and seed."""


def outcome_of(run: Run) -> Outcome:
    """Run every step of an experiment up to its evaluations."""
    model, dataset = prepare(run)
    folds = folds_of(dataset, run.config)
    activations = extract(run, model, dataset)
    scores = localize(run, model, folds, activations)
    evaluations = evaluate(run, model, folds, activations, scores)
    return Outcome(
        checkpoint=model.checkpoint,
        dataset=dataset,
        activations=activations,
        scores=scores,
        evaluations=evaluations,
    )


def prepare(run: Run) -> tuple[ModelRef, ArtifactRef]:
    """Return the model, made if it is an embedded one, and the behaviour's data."""
    config = run.config
    dataset = alone(run, data.dataset, source=data.source_of(config))
    checkpoint = alone(
        run,
        stages.checkpoint,
        model=config.model,
        fingerprint=stages.fingerprint_of(config.model),
        execution=config.execution,
    )
    model = ModelRef(config=config.model, checkpoint=checkpoint)
    run.note(**model.columns)
    return model, dataset


def extract(run: Run, model: ModelRef, dataset: ArtifactRef) -> Activations:
    """Read the activations of every kind of module that is needed, a task a shard of samples."""
    config = run.config
    kinds = dict.fromkeys([config.module_kind, *(m.kind for m in methods_of(config))])
    parts = data.sample_shards(dataset, config.extraction)
    inputs = {"model": model, "config": config.extraction, "execution": config.execution}
    shards = [
        (f"{kind}-samples-{i}", {**inputs, "shard": part, "kind": kind})
        for kind in kinds
        for i, part in enumerate(parts)
    ]
    refs = fan_out(run, stages.activations, shards)
    n = len(parts)
    return {kind: tuple(refs[i * n : (i + 1) * n]) for i, kind in enumerate(kinds)}


def localize(
    run: Run, model: ModelRef, folds: tuple[Fold, ...], activations: Activations
) -> tuple[Scores, ...]:
    """Score all modules with every localizer, fold and seed."""
    rankings = rankings_of(run.config)
    steering = [ranking for ranking in rankings if LOCALIZERS[ranking.localizer.name].uses_effects]
    reading = [ranking for ranking in rankings if ranking not in steering]
    effect = {"model": model, "batch_tokens": run.config.evaluation.batch_tokens}
    found = score(run, stages.scores, reading, folds, activations, {})
    if steering:
        found += score(run, stages.effects, steering, folds, activations, effect)
    return found


def score(
    run: Run,
    stage: Stage,
    rankings: list[Ranking],
    folds: tuple[Fold, ...],
    activations: Activations,
    further: dict[str, Any],
) -> tuple[Scores, ...]:
    """Score the modules of every ranking, fold and seed by one stage, a task a layer."""
    config = run.config
    n_layers = shape_of(config).n_layers
    settings = [
        (ranking, fold, seed)
        for ranking in rankings
        for fold in folds
        for seed in seeds_of(LOCALIZERS[ranking.localizer.name].stochastic, config)
    ]
    shards = [
        (
            f"{ranking.localizer.name}-{ranking.kind}-fold-{fold.index}-seed-{seed}-layer-{layer}",
            {
                "localizer": ranking.localizer,
                "fold": fold,
                "activations": activations[ranking.kind],
                "kind": ranking.kind,
                "layer": layer,
                "seed": seed,
                "execution": config.execution,
                **further,
            },
        )
        for ranking, fold, seed in settings
        for layer in range(n_layers)
    ]
    refs = fan_out(run, stage, shards)
    return tuple(
        Scores(
            localizer=ranking.localizer.name,
            kind=ranking.kind,
            fold=fold.index,
            seed=seed,
            shards=tuple(refs[place * n_layers : (place + 1) * n_layers]),
        )
        for place, (ranking, fold, seed) in enumerate(settings)
    )


def find_directions(
    run: Run, folds: tuple[Fold, ...], activations: Activations, wanted: Iterable[DirectionKey]
) -> dict[DirectionKey, ArtifactRef]:
    """Return the directions of all modules for every (direction, kind, fold, seed) wanted."""
    keys = list(dict.fromkeys(wanted))
    shards = [
        (
            f"{name}-{kind}-fold-{fold}-seed-{seed}",
            {
                "direction": name,
                "fold": folds[fold],
                "activations": activations[kind],
                "kind": kind,
                "n_layers": shape_of(run.config).n_layers,
                "seed": seed,
                "execution": run.config.execution,
            },
        )
        for name, kind, fold, seed in keys
    ]
    return dict(zip(keys, fan_out(run, stages.directions, shards), strict=True))


def evaluate(
    run: Run,
    model: ModelRef,
    folds: tuple[Fold, ...],
    activations: Activations,
    scores: tuple[Scores, ...],
) -> tuple[MethodEvaluation, ...]:
    """Tune and test every method on every fold, with every seed that can change its outcome."""
    config = run.config
    settings = [
        (method, fold, seed)
        for method in methods_of(config)
        for fold in folds
        for seed in seeds_of(method.seeded, config)
    ]
    needed = [direction_of(method, fold.index, seed, config) for method, fold, seed in settings]
    directions = find_directions(run, folds, activations, filter(None, needed))
    shards = [
        (
            f"{method.name}-fold-{fold.index}-seed-{seed}",
            {
                "method": method,
                "model": model,
                "fold": fold,
                "scores": scores_for(scores, method, fold.index, seed),
                "directions": None if key is None else directions[key],
                "config": config.evaluation,
                "execution": config.execution,
            },
        )
        for (method, fold, seed), key in zip(settings, needed, strict=True)
    ]
    refs = fan_out(run, evaluation, shards)
    return tuple(
        MethodEvaluation(method=method.name, fold=fold.index, seed=seed, evaluation=ref)
        for (method, fold, seed), ref in zip(settings, refs, strict=True)
    )


def folds_of(dataset: ArtifactRef, config: ExperimentConfig) -> tuple[Fold, ...]:
    """Return the folds of the data."""
    indices = range(config.data.n_folds)
    return tuple(Fold(dataset=dataset, config=config.data, index=index) for index in indices)


def seeds_of(seeded: bool, config: ExperimentConfig) -> tuple[int, ...]:
    """Return the seeds to go through: one where the seed changes nothing."""
    return config.seeds if seeded else config.seeds[:1]


def direction_of(
    method: Method, fold: int, seed: int, config: ExperimentConfig
) -> DirectionKey | None:
    """Return which directions the method needs; only random ones depend on the seed."""
    if method.direction is None:
        return None
    its_seed = seed if method.direction == "random" else config.seeds[0]
    return method.direction, method.kind, fold, its_seed


def scores_for(
    scores: tuple[Scores, ...], method: Method, fold: int, seed: int
) -> tuple[ArtifactRef, ...]:
    """Return the scores that rank the method's modules; none where it has no localizer."""
    wanted = (method.localizer, method.kind, fold)
    mine = {s.seed: s.shards for s in scores if (s.localizer, s.kind, s.fold) == wanted}
    return mine.get(seed) or next(iter(mine.values()), ())
