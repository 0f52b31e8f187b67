"""The steps that flows chain: each fans out over shards and returns references."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

from flows.running.fan_out import alone, fan_out
from real_tasks.experiment.prepared import Prepared
from real_tasks.experiment.work import Fit, Scoring
from real_tasks.tasks.records.run import Run
from real_tasks.tasks.stages import dataset as data
from real_tasks.tasks.stages.activations import activations as read_activations
from real_tasks.tasks.stages.checkpoint import checkpoint as make_checkpoint
from real_tasks.tasks.stages.checkpoint import checkpoint_inputs
from real_tasks.tasks.stages.effects import effects as score_effects
from real_tasks.tasks.stages.evaluation import evaluation
from real_tasks.tasks.stages.fits import fits
from real_tasks.tasks.stages.folds import Fold
from real_tasks.tasks.stages.model_fits import model_fits
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.tasks.stages.outcome import MethodEvaluation, Outcome, Scores
from real_tasks.tasks.stages.scores import scores as score_activations
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModuleKind, Reading
from storage.artifacts.store import ArtifactRef

Read = dict[tuple[ModuleKind, Reading], tuple[ArtifactRef, ...]]
"""Shards of activations, by the kind of module and the tokens at which they were read."""
Given = Callable[[Scoring | Fit, ModuleKind], dict[str, Any]]
"""Returns what a unit of work is given, see `_given`."""


def outcome_of(run: Run, prepared: Prepared, evaluating: bool = True) -> Outcome:
    """Run every step of an experiment up to its evaluations, or to its scores."""
    model, dataset = keep_inputs(run, prepared)
    folds = folds_of(dataset, prepared.config)
    activations = extract(run, prepared, model, dataset)
    given = partial(_given, prepared.config, model, folds, activations)
    scores = localize(run, prepared, given)
    fitted = fit(run, prepared, given, scores) if evaluating else {}
    return Outcome(
        checkpoint=model.checkpoint,
        dataset=dataset,
        # What was read at the last tokens is what tables and pictures show.
        activations={kind: refs for (kind, at), refs in activations.items() if at == "last"},
        scores=scores,
        evaluations=evaluate(run, prepared, model, folds, scores, fitted) if evaluating else (),
    )


def keep_inputs(run: Run, prepared: Prepared) -> tuple[ModelRef, ArtifactRef]:
    """Return the model, made if it is an embedded one, and the behaviour's data."""
    config = prepared.config
    dataset = alone(run, data.dataset, source=data.source_of(prepared.data))
    checkpoint = alone(
        run, make_checkpoint, **checkpoint_inputs(config.model), execution=config.execution
    )
    model = ModelRef(config=config.model, checkpoint=checkpoint)
    run.note(**model.columns)
    return model, dataset


def extract(run: Run, prepared: Prepared, model: ModelRef, dataset: ArtifactRef) -> Read:
    """Read all activations that are needed, a task a shard of samples."""
    config, readings = prepared.config, prepared.work.readings
    parts = data.sample_shards(dataset, config.extraction)
    inputs = {"model": model, "config": config.extraction, "execution": config.execution}
    shards = [
        (
            f"{kind}{'' if at == 'last' else f'-{at}'}-samples-{i}",
            {**inputs, "shard": part, "kind": kind, "reading": at},
        )
        for kind, at in readings
        for i, part in enumerate(parts)
    ]
    refs = fan_out(run, read_activations, shards)
    n = len(parts)
    return {one: tuple(refs[i * n : (i + 1) * n]) for i, one in enumerate(readings)}


def _given(
    config: ExperimentConfig,
    model: ModelRef,
    folds: tuple[Fold, ...],
    activations: Read,
    one: Scoring | Fit,
    kind: ModuleKind,
) -> dict[str, Any]:
    """Return the inputs that stages of scoring and of fitting have in common."""
    inputs: dict[str, Any] = {
        "fold": folds[one.fold],
        "activations": activations[kind, one.reading],
        "kind": kind,
        "seed": one.seed,
        "execution": config.execution,
    }
    if one.beside is not None:
        inputs["beside"] = activations[one.beside, one.reading]
    if one.needs_model:
        inputs |= {"model": model, "batch_tokens": config.evaluation.batch_tokens}
    return inputs


def localize(run: Run, prepared: Prepared, given: Given) -> tuple[Scores, ...]:
    """Score all modules with every localizer, fold and seed, a task a layer."""
    layers_of = prepared.shape.n_layers_of
    found: list[Scores] = []
    for stage, needs_model in ((score_activations, False), (score_effects, True)):
        wanted = [one for one in prepared.work.scorings if one.needs_model == needs_model]
        shards = [
            (
                f"{ranking.localizer.name}-{ranking.kind}-fold-{one.fold}-seed-{one.seed}"
                f"-layer-{layer}",
                {"localizer": ranking.localizer, "layer": layer, **given(one, ranking.kind)},
            )
            for one in wanted
            for ranking in [one.ranking]
            for layer in range(layers_of(ranking.kind))
        ]
        refs = iter(fan_out(run, stage, shards, prepared.shape) if shards else ())
        found += [
            Scores(
                localizer=ranking.localizer.name,
                kind=ranking.kind,
                fold=fold,
                seed=seed,
                shards=tuple(islice(refs, layers_of(ranking.kind))),
            )
            for ranking, fold, seed in wanted
        ]
    return tuple(found)


def fit(
    run: Run, prepared: Prepared, given: Given, scores: tuple[Scores, ...]
) -> dict[Fit, ArtifactRef]:
    """Find all tensors that the experiment needs; the model is loaded for fitters that ask."""
    found: dict[Fit, ArtifactRef] = {}
    for stage, needs_model in ((fits, False), (model_fits, True)):
        wanted = [one for one in prepared.work.fits if one.needs_model == needs_model]
        shards = [
            (
                f"{one.fitter.name}-{one.kind}-fold-{one.fold}-seed-{one.seed}",
                {
                    "fitter": one.fitter,
                    "n_layers": prepared.shape.n_layers_of(one.kind),
                    **given(one, one.kind),
                    **_ranked(scores, one),
                },
            )
            for one in wanted
        ]
        if shards:
            found |= zip(wanted, fan_out(run, stage, shards), strict=True)
    return found


def evaluate(
    run: Run,
    prepared: Prepared,
    model: ModelRef,
    folds: tuple[Fold, ...],
    scores: tuple[Scores, ...],
    fitted: Mapping[Fit, ArtifactRef],
) -> tuple[MethodEvaluation, ...]:
    """Tune and test every method on every fold, with every seed that can change its outcome."""
    config, trials = prepared.config, prepared.work.trials
    shards = [
        (
            f"{method.name}-fold-{fold}-seed-{seed}",
            {
                "method": method,
                "model": model,
                "fold": folds[fold],
                "scores": scores_for(scores, method.localizer, method.kind, fold, seed),
                "tensors": None if needed is None else fitted[needed],
                "config": config.evaluation,
                "execution": config.execution,
            },
        )
        for method, fold, seed, needed in trials
    ]
    refs = fan_out(run, evaluation, shards)
    return tuple(
        MethodEvaluation(method=one.method.name, fold=one.fold, seed=one.seed, evaluation=ref)
        for one, ref in zip(trials, refs, strict=True)
    )


def folds_of(dataset: ArtifactRef, config: ExperimentConfig) -> tuple[Fold, ...]:
    """Return the folds of the data."""
    indices = range(config.data.n_folds)
    return tuple(Fold(dataset=dataset, config=config.data, index=index) for index in indices)


def scores_for(
    scores: tuple[Scores, ...], localizer: str | None, kind: ModuleKind, fold: int, seed: int
) -> tuple[ArtifactRef, ...]:
    """Return the scores that a localizer gives modules of a kind; none without a localizer."""
    wanted = (localizer, kind, fold)
    mine = {s.seed: s.shards for s in scores if (s.localizer, s.kind, s.fold) == wanted}
    return mine.get(seed) or next(iter(mine.values()), ())


def _ranked(scores: tuple[Scores, ...], one: Fit) -> dict[str, Any]:
    """Return the scores that a fitter asks for, and those of the modules that alone are fitted."""
    found: dict[str, Any] = {}
    if one.ranking is not None:
        found["ranked"] = scores_for(scores, *one.ranking, one.fold, one.seed)
    if one.best is not None:
        localizer, found["top_k"] = one.best
        found["scores"] = scores_for(scores, localizer, one.kind, one.fold, one.seed)
    return found
