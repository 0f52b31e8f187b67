"""The cached stage that tunes and tests one way of steering."""

import json
from pathlib import Path
from typing import Any

from real_tasks.evaluation.gating import gate_input
from real_tasks.evaluation.harness.tasks import lm_eval_results
from real_tasks.evaluation.measuring import Evaluator, measuring_modules
from real_tasks.evaluation.record import evaluation_record
from real_tasks.evaluation.speed import token_seconds
from real_tasks.evaluation.tuning import evaluate_method
from real_tasks.experiment.candidates import SpecTemplate, candidate_selections
from real_tasks.experiment.methods.method import Method
from real_tasks.models.families import write_gains
from real_tasks.models.identity import weights_fingerprint
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.asking import PROMPT, Asking
from real_tasks.reading.batches import encode
from real_tasks.reading.prompts import prompt_text
from real_tasks.steering.spec import SteeringSpec
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage, store
from real_tasks.tasks.cache.timings import SECONDS
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.folds import Fold
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from storage.artifacts.store import ArtifactRef
from storage.paths import Home
from storage.runs.verdicts import VerdictMemory


@stage("evaluation", lambda inputs: measuring_modules(inputs["config"]) + inputs["method"].modules)
def evaluation(
    out: Path,
    *,
    method: Method,
    model: ModelRef,
    fold: Fold,
    scores: tuple[ArtifactRef, ...],
    tensors: ArtifactRef | None,
    config: EvaluationConfig,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Tune one method's K and alpha on validation questions and test the choice."""
    use_threads(execution)
    data, split = fold.load()
    loaded = model.load(execution)
    candidates, selections, gate = {}, {}, method.gate
    if tensors is not None:
        ranking = references.load_scores(scores).scores if scores else None
        asking = Asking.of(data, loaded.chat).as_facts()
        facts = {"method": method.name, "behaviour": data.name, "fold": fold.index, PROMPT: asking}
        template = SpecTemplate(
            method,
            model.config.path,
            model.checkpoint.digest,
            weights_fingerprint(loaded.model),
            loaded.shape,
            references.load_tensors(tensors),
            facts,
            gate_input(loaded, data, split.train, config.batch_tokens, gate) if gate else None,
            write_gains(loaded.model),
        )
        selections = candidate_selections(method, ranking, loaded.shape)
        candidates = {k: template.spec(selection) for k, selection in selections.items()}
    share = all(spec.intervention().shares_prompts for spec in candidates.values())
    evaluator = Evaluator(loaded, data, split, config, VerdictMemory(Home.current()), share)
    result = evaluate_method(
        evaluator, candidates, config, method.strengths, method.largest_strength
    )
    record = evaluation_record(result, selections.get(result.chosen.top_k or 0, ()))
    if config.search == "race":
        record["race"] = {"order": evaluator.order}
    if gate and result.spec:
        for dose, alpha in (("test", result.spec.alpha), ("matched", result.matched_alpha)):
            if alpha is not None:
                spec = result.spec.with_alpha(alpha)
                record[dose]["kl_open"] = evaluator.kl_on_prompts("test", spec)
        record["test"]["metrics"]["kl_open"] = record["test"]["kl_open"]
    record["test"]["metrics"] |= _harness(loaded, result.spec, config)
    (out / references.EVALUATION).write_text(json.dumps(record))
    if result.spec is not None:
        result.spec.save(out / references.SPEC)
    parts = (*scores, *([tensors] if tensors else ()))
    return {
        "top_k": result.chosen.top_k,
        "alpha": result.chosen.alpha,
        "device": str(loaded.device),
        "model_type": str(loaded.model.config.model_type),
        "fit_seconds": sum(float(store().facts(part)[SECONDS]) for part in parts),
        **_speed(loaded, prompt_text(loaded, data, data.questions[split.test[0]]), result.spec),
    }


def _speed(loaded: LoadedModel, prompt: str, spec: SteeringSpec | None) -> dict[str, float]:
    if spec is None:
        return {}
    (ids,) = encode(loaded, [prompt])
    steered, bare = token_seconds(loaded, ids, spec.intervention())
    return {"token_seconds": steered, "bare_token_seconds": bare}


def _harness(
    loaded: LoadedModel, spec: SteeringSpec | None, config: EvaluationConfig
) -> dict[str, float]:
    if not config.lm_eval_tasks:
        return {}
    intervention = spec.intervention() if spec else None
    return lm_eval_results(loaded, intervention, config.lm_eval_tasks, config.lm_eval_limit)
