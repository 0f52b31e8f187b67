"""The cached stages of an experiment, in the order of the data's way."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from real_tasks.behaviours import BEHAVIOURS
from real_tasks.candidates import SpecTemplate, candidate_selections
from real_tasks.checks import load_behaviour
from real_tasks.config import (
    DataConfig,
    EvaluationConfig,
    ExecutionConfig,
    ExtractionConfig,
    ModelConfig,
    PlugIn,
)
from real_tasks.directions import DIRECTIONS, projection_sigma
from real_tasks.evaluation.judges import JUDGES
from real_tasks.evaluation.measuring import Evaluator
from real_tasks.evaluation.record import evaluation_record
from real_tasks.evaluation.tuning import evaluate_method
from real_tasks.extraction import check_vocabulary, head_activations
from real_tasks.localizers import LOCALIZERS
from real_tasks.methods import Method
from real_tasks.models import resolve_device
from real_tasks.organism import EMBEDDED_MODELS
from real_tasks.samples import localizer_input, samples_of, with_shuffled_labels
from real_tasks.splits import split
from real_tasks.tasks import loading, progress
from real_tasks.tasks.caching import stage, store
from real_tasks.tasks.machine import use_threads
from storage.activations import write_shard
from storage.artifacts import ArtifactRef, fingerprint


def _module_of(registry: Any, name: str) -> list[str]:
    return [registry[name].__module__] if name in registry else []


@stage("checkpoint", lambda inputs: _module_of(EMBEDDED_MODELS, inputs["model"].path))
def checkpoint(
    out: Path, *, model: ModelConfig, fingerprint: str, execution: ExecutionConfig
) -> dict[str, Any]:
    """Make the embedded model, or note which checkpoint of the user's is meant."""
    if model.path not in EMBEDDED_MODELS:
        (out / "fingerprint").write_text(fingerprint)
        return {"folder": str(Path(model.path).absolute())}
    use_threads(execution, alone=True)
    entry = EMBEDDED_MODELS[model.path]
    embedded = entry(entry.Params.model_validate(model.params))
    return embedded.build(out, lambda done, total: progress.report("checkpoint", done, total))


@stage("dataset", lambda inputs: _module_of(BEHAVIOURS, inputs["behaviour"].name))
def dataset(out: Path, *, behaviour: PlugIn, config: DataConfig) -> dict[str, Any]:
    """Load the behaviour's questions, answers and neutral texts."""
    data = load_behaviour(behaviour)
    if config.shuffle_labels:
        data = with_shuffled_labels(data, config.split_seed)
    (out / loading.DATASET).write_bytes(loading.dataset_json(data))
    return {"questions": len(data.questions), "samples": len(samples_of(data))}


def fingerprint_of(model: ModelConfig) -> str:
    """Return a hash of a checkpoint's files; an embedded model is known by its parameters."""
    return "" if model.path in EMBEDDED_MODELS else fingerprint(Path(model.path))


def n_sample_shards(dataset: ArtifactRef, config: ExtractionConfig) -> int:
    """Return into how many shards the samples are cut."""
    return -(-int(store().facts(dataset)["samples"]) // config.samples_per_shard)


@stage("activations")
def activations(
    out: Path,
    *,
    model: ModelConfig,
    checkpoint: ArtifactRef,
    dataset: ArtifactRef,
    config: ExtractionConfig,
    shard: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Read the head activations of one shard of samples, all layers in one pass."""
    use_threads(execution)
    data = loading.load_dataset(dataset)
    start = shard * config.samples_per_shard
    samples = samples_of(data)[start : start + config.samples_per_shard]
    texts = [data.full_text(sample.question, sample.answer) for sample in samples]
    loaded = loading.load_checkpoint(checkpoint, model.dtype, execution)
    check_vocabulary(loaded, texts)
    values = head_activations(loaded, texts, config.batch_tokens)
    rows = [
        {
            "model": model.name,
            "behaviour": data.name,
            "question_id": sample.question.question_id,
            "answer_id": sample.answer.answer_id,
            "label": sample.answer.label,
        }
        for sample in samples
    ]
    write_shard(out, 0, rows, values.numpy(), config.dtype)
    return {"samples": len(samples), "device": str(loaded.device), **asdict(loaded.shape)}


@stage("scores", lambda inputs: _module_of(LOCALIZERS, inputs["localizer"].name))
def scores(
    out: Path,
    *,
    localizer: PlugIn,
    dataset: ArtifactRef,
    activations: tuple[ArtifactRef, ...],
    config: DataConfig,
    fold: int,
    seed: int,
    layer: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Score the heads of one layer on the training and validation questions of one fold."""
    use_threads(execution)
    data = loading.load_dataset(dataset)
    values = loading.load_activations(activations, layer)
    device = resolve_device(execution.device)
    fold_split = split(len(data.questions), fold, config)
    modules = loading.heads_of_layer(layer, values.shape[1])
    entry = LOCALIZERS[localizer.name]
    result = entry(entry.Params.model_validate(localizer.params)).localize(
        localizer_input(modules, values, data, fold_split, device), seed
    )
    loading.save_scores(out, result)
    return {"modules": len(modules), "device": str(device)}


@stage("directions")
def directions(
    out: Path,
    *,
    direction: str,
    dataset: ArtifactRef,
    activations: tuple[ArtifactRef, ...],
    config: DataConfig,
    n_layers: int,
    fold: int,
    seed: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Find every head's direction, and sigma along it, on the training questions of one fold."""
    use_threads(execution)
    data = loading.load_dataset(dataset)
    train_only = replace(split(len(data.questions), fold, config), validation=(), test=())
    thetas, sigmas = [], []
    for layer in range(n_layers):
        values = loading.load_activations(activations, layer)
        modules = loading.heads_of_layer(layer, values.shape[1])
        train = localizer_input(modules, values, data, train_only, torch.device("cpu"))
        theta = DIRECTIONS[direction](modules, train.values, train.labels, seed)
        thetas.append(theta)
        sigmas.append(projection_sigma(train.values, theta))
    tensors = {"directions": torch.stack(thetas), "sigmas": torch.stack(sigmas)}
    save_file(tensors, out / loading.DIRECTIONS)
    return {"direction": direction}


@stage("evaluation", lambda inputs: _module_of(JUDGES, inputs["config"].judge))
def evaluation(
    out: Path,
    *,
    method: Method,
    model: ModelConfig,
    checkpoint: ArtifactRef,
    dataset: ArtifactRef,
    scores: tuple[ArtifactRef, ...],
    directions: ArtifactRef | None,
    data_config: DataConfig,
    config: EvaluationConfig,
    fold: int,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Tune one method's K and alpha on validation questions and test the choice."""
    use_threads(execution)
    data = loading.load_dataset(dataset)
    loaded = loading.load_checkpoint(checkpoint, model.dtype, execution)
    fold_split = split(len(data.questions), fold, data_config)
    candidates, selections = {}, {}
    if directions is not None:
        ranking = loading.load_scores(scores).scores if scores else None
        template = SpecTemplate(
            model.name,
            checkpoint.digest,
            *loading.load_directions(directions),
            config.token_scope,
            {"method": method.name, "behaviour": data.name, "fold": fold},
        )
        selections = candidate_selections(method, ranking, loaded.shape, config.top_k)
        candidates = {k: template.spec(selection) for k, selection in selections.items()}
    result = evaluate_method(Evaluator(loaded, data, fold_split, config), candidates, config)
    selected = selections.get(result.chosen.top_k or 0, ())
    text = json.dumps(evaluation_record(result, selected))
    (out / loading.EVALUATION).write_text(text)
    if result.spec is not None:
        result.spec.save(out / loading.SPEC)
    return {
        "top_k": result.chosen.top_k,
        "alpha": result.chosen.alpha,
        "device": str(loaded.device),
    }
