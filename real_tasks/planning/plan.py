"""What an experiment will take, before anything is loaded: bytes, memory, tasks, FLOPs.

Upper bounds: an intervention over the cap on KL is not measured on questions, generated answers end
before their limit, and what was done before comes from the cache. Runs of lm-evaluation-harness,
bootstraps, and the reading and writing of files are not counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from real_tasks.experiment.checks import check_modules
from real_tasks.experiment.methods import Ranking, rankings_of, with_methods
from real_tasks.experiment.sources import shape_of
from real_tasks.experiment.work import Scoring, Trial, work_of
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.families import check_kind, configured_shape
from real_tasks.planning.costs import (
    ModelSize,
    activation_bytes,
    architecture_of,
    forward_flops,
    model_size,
)
from real_tasks.planning.memory import evaluation_bytes, extraction_bytes, shard_bytes
from real_tasks.planning.rows import Plan, StagePlan
from real_tasks.planning.workload import DataSize, evaluation_tokens, train_share, validation_share
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModelShape, ModuleKind


def planned_shape(config: ExperimentConfig) -> ModelShape:
    """Return the model's shape: by its config.json, or ``model.shape`` while that is not there.

    Raises:
        UserInputError: there is neither, or the architecture has no modules of the kind.
    """
    if config.model.path in EMBEDDED_MODELS:
        return shape_of(config)
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


def plan(
    config: ExperimentConfig, shape: ModelShape, size: DataSize, model: ModelSize | None = None
) -> Plan:
    """Plan a resolved configuration for a model of this shape and data of this size.

    Raises:
        UserInputError: K or a localizer's parameters do not fit the shape.
    """
    check_modules(shape, config)
    config = with_methods(config)
    size = replace(size, measures=config.evaluation.measures or size.measures)
    work = work_of(config)
    kinds = work.kinds
    n_shard = min(size.n_answers, config.extraction.samples_per_shard)
    reading = max(kinds, key=lambda kind: shard_bytes(shape, kind, n_shard))
    return Plan(
        modules={kind: len(shape.modules(kind)) for kind in kinds},
        samples=size.n_answers,
        sample_shards=_n_shards(config, size),
        activation_bytes=activation_bytes(shape, kinds, size.n_answers, config.extraction.dtype),
        shard_bytes=shard_bytes(shape, reading, n_shard),
        extraction_bytes=extraction_bytes(model, shape, reading, config, size) if model else None,
        localizer_bytes=max(_shard_bytes(r, config, shape, size) for r in rankings_of(config)),
        evaluation_bytes=evaluation_bytes(model, config, size) if model else None,
        model=model,
        stages=(
            StagePlan("dataset", 1),
            StagePlan("checkpoint", 1),
            _activations(config, kinds, size, model),
            _scores(config, work.scorings, shape, size, model),
            StagePlan("fits", len(work.fits)),
            _evaluation(config, work.trials, size, model),
        ),
    )


def _n_shards(config: ExperimentConfig, size: DataSize) -> int:
    return -(-size.n_answers // config.extraction.samples_per_shard)


def _language_model(
    stage: str, tasks: int, tokens: float, model: ModelSize | None, localizer_flops: float = 0.0
) -> StagePlan:
    """A stage whose language model reads tokens, beside what its localizers do."""
    flops = forward_flops(model.parameters, tokens) if model else None
    return StagePlan(stage, tasks, tokens, flops if tokens else 0.0, localizer_flops)


def _activations(
    config: ExperimentConfig,
    kinds: Sequence[ModuleKind],
    size: DataSize,
    model: ModelSize | None,
) -> StagePlan:
    """A task a shard of samples and kind of module, each a reading of its own."""
    tasks = _n_shards(config, size) * len(kinds)
    return _language_model("activations", tasks, size.read_tokens * len(kinds), model)


def _scores(
    config: ExperimentConfig,
    scorings: Sequence[Scoring],
    shape: ModelShape,
    size: DataSize,
    model: ModelSize | None,
) -> StagePlan:
    """A task a scoring and layer.

    One that uses effects reads the validation answers once unsteered in every task and once for
    every module. What else a localizer does, it says itself.
    """
    tasks, tokens, trained = 0, 0.0, 0.0
    for scoring in scorings:
        ranking = scoring.ranking
        layers = shape.n_layers_of(ranking.kind)
        tasks += layers
        n_modules = shape.modules_per_layer(ranking.kind)
        if scoring.steers:
            tokens += _effects_of_a_layer(n_modules, config, size) * layers
        localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
        n_train = train_share(config) * size.n_answers
        trained += localizer.flops(shape.width(ranking.kind), n_train) * n_modules * layers
    return _language_model("scores", tasks, tokens, model, trained)


def _effects_of_a_layer(n_modules: int, config: ExperimentConfig, size: DataSize) -> float:
    answers = validation_share(config) * size.n_answers
    tokens = answers * size.prompt_tokens * size.prompt_share
    return (tokens + size.prefix_tokens) * (n_modules + 1)


def _shard_bytes(
    ranking: Ranking, config: ExperimentConfig, shape: ModelShape, size: DataSize
) -> int:
    """Peak memory of scoring one layer."""
    d, n_modules = shape.width(ranking.kind), shape.modules_per_layer(ranking.kind)
    n_train = train_share(config) * size.n_answers
    n_seen = n_train + validation_share(config) * size.n_answers
    localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
    return localizer.peak_bytes(d, n_modules, n_train, n_seen)


def _evaluation(
    config: ExperimentConfig, trials: Sequence[Trial], size: DataSize, model: ModelSize | None
) -> StagePlan:
    vocabulary = model.vocabulary if model else 0
    tokens = sum(
        evaluation_tokens(method, config, size, vocabulary) * runs
        for method, runs in Counter(trial.method for trial in trials).items()
    )
    return _language_model("evaluation", len(trials), tokens, model)
