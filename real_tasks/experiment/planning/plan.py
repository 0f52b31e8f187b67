"""What an experiment will take, before anything is loaded: bytes, memory, tasks, FLOPs.

Upper bounds: an intervention over the cap on KL is not measured on questions, generated answers end
before their limit, and what was done before comes from the cache. Runs of lm-evaluation-harness,
bootstraps, and the reading and writing of files are not counted.
"""

from dataclasses import replace
from functools import partial

from real_tasks.experiment.checks import check_modules
from real_tasks.experiment.methods.known import Ranking, rankings_of, with_methods
from real_tasks.experiment.planning.costs import (
    ModelSize,
    activation_bytes,
    architecture_of,
    forward_flops,
    model_size,
)
from real_tasks.experiment.planning.memory import evaluation_bytes, extraction_bytes, shard_bytes
from real_tasks.experiment.planning.rows import Plan, StagePlan
from real_tasks.experiment.planning.workload import (
    DataSize,
    evaluation_tokens,
    train_share,
    validation_share,
)
from real_tasks.experiment.work import Work, work_of
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.families import check_kind, configured_shape
from real_tasks.steering.fitters import FITTERS
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModelShape, ModuleKind


def planned_shape(config: ExperimentConfig) -> ModelShape:
    """Return the model's shape: by its config.json, or ``model.shape`` while that is not there.

    Raises:
        UserInputError: there is neither, or the architecture has no modules of the kind.
    """
    if config.model.path in EMBEDDED_MODELS:
        return EMBEDDED_MODELS.made(config.model.path, config.model.params).shape()
    architecture = architecture_of(config.model)
    if architecture is not None:
        check_kind(architecture, config.module_kind)
        return configured_shape(architecture)
    assert config.model.shape is not None
    return ModelShape(**config.model.shape.model_dump(exclude={"parameters"}))


def plan_experiment(config: ExperimentConfig, size: DataSize) -> Plan:
    """Plan a resolved configuration with what is known of its model on this machine.

    Raises:
        UserInputError: see `planned_shape` and `plan`.
    """
    shape = planned_shape(config)
    return plan(config, shape, size, model_size(config.model, shape))


def plan(config: ExperimentConfig, shape: ModelShape, size: DataSize, model: ModelSize) -> Plan:
    """Plan a resolved configuration for a model and data of these sizes.

    Raises:
        UserInputError: K or a localizer's parameters do not fit the shape.
    """
    check_modules(shape, config)
    config = with_methods(config)
    size = replace(size, measures=config.evaluation.measures or size.measures)
    work = work_of(config)
    kinds = tuple(kind for kind, _ in work.readings)
    per_shard = config.extraction.samples_per_shard
    n_shard, n_shards = min(size.n_answers, per_shard), -(-size.n_answers // per_shard)
    of_a_shard = {kind: shard_bytes(shape, kind, n_shard) for kind in kinds}
    reading: ModuleKind = max(kinds, key=of_a_shard.__getitem__)
    tested = [evaluation_tokens(one.method, config, size) for one in work.trials]
    read = partial(_language_model, model)
    return Plan(
        modules={kind: len(shape.modules(kind)) for kind in kinds},
        samples=size.n_answers,
        sample_shards=n_shards,
        activation_bytes=activation_bytes(shape, kinds, size.n_answers, config.extraction.dtype),
        shard_bytes=of_a_shard[reading],
        extraction_bytes=extraction_bytes(model, shape, reading, config, size),
        localizer_bytes=max(_scoring_bytes(r, config, shape, size) for r in rankings_of(config)),
        evaluation_bytes=evaluation_bytes(model, config, size),
        model=model,
        stages=(
            StagePlan("dataset", 1),
            StagePlan("checkpoint", 1),
            # A task a shard of samples, kind of module and place, each a reading of its own.
            read("activations", n_shards * len(kinds), size.read_tokens * len(kinds)),
            read(
                "scores",
                sum(shape.n_layers_of(scoring.ranking.kind) for scoring in work.scorings),
                _effect_tokens(work, config, shape, size),
                _training_flops(work, config, shape, size),
            ),
            read("fits", len(work.fits), _fit_tokens(work, shape, size)),
            read("evaluation", len(tested), sum(tested)),
        ),
    )


def _language_model(
    model: ModelSize, stage: str, tasks: int, tokens: float, localizer_flops: float = 0.0
) -> StagePlan:
    """A stage whose language model reads tokens, beside what its localizers do."""
    return StagePlan(stage, tasks, tokens, forward_flops(model.parameters, tokens), localizer_flops)


def _effect_tokens(
    work: Work, config: ExperimentConfig, shape: ModelShape, size: DataSize
) -> float:
    """Validation answers, once unsteered in each task that steers and once for each module."""
    share, total = validation_share(config), 0.0
    each = size.n_answers * size.prompt_tokens * size.prompt_share
    for ranking in (one.ranking for one in work.scorings):
        localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
        if not localizer.uses_effects:
            continue
        most = localizer.most_questions
        asked = share if most is None else min(share, most / size.n_questions)
        modules = (shape.modules_per_layer(ranking.kind) + 1) * shape.n_layers_of(ranking.kind)
        before = size.prefix_tokens
        if shown := localizer.few_shot:
            before = shown.contexts * shown.shots * size.prompt_tokens
        total += modules * (asked * each + before)
    return total


def _fit_tokens(work: Work, shape: ModelShape, size: DataSize) -> float:
    """What fitters that train through the model, or linearise it, have it read."""
    total = 0.0
    for one in work.fits:
        made = FITTERS.made(one.fitter.name, one.fitter.params)
        times = one.best[1] if one.best else len(shape.modules(one.kind))
        read = made.tokens_read(shape, size.prompt_tokens, size.n_answers / size.n_questions)
        total += read * (1 if made.all_layers else times)
    return total


def _training_flops(
    work: Work, config: ExperimentConfig, shape: ModelShape, size: DataSize
) -> float:
    n_train = train_share(config) * size.n_answers
    total = 0.0
    for ranking, _, _ in work.scorings:
        localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
        each = localizer.flops(shape.width(ranking.kind), n_train)
        total += each * len(shape.modules(ranking.kind))
    return total


def _scoring_bytes(
    ranking: Ranking, config: ExperimentConfig, shape: ModelShape, size: DataSize
) -> int:
    """Peak memory of scoring one layer."""
    d, n_modules = shape.width(ranking.kind), shape.modules_per_layer(ranking.kind)
    n_train = train_share(config) * size.n_answers
    n_seen = n_train + validation_share(config) * size.n_answers
    localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
    return localizer.peak_bytes(d, n_modules, n_train, n_seen)
