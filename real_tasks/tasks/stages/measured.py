"""The cached stage that measures what was found, on other questions than it was found on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from real_tasks.evaluation.measuring import Evaluator, measuring_modules
from real_tasks.evaluation.transfer import leak_free_questions
from real_tasks.steering.spec import SteeringSpec
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage, store
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.folds import Fold
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from real_tasks.vocabulary.types import FoldSplit
from storage.artifacts.store import ArtifactRef
from storage.paths import Home
from storage.runs.verdicts import VerdictMemory


@stage("measured", lambda inputs: measuring_modules(inputs["config"]))
def measured(
    out: Path,
    *,
    model: ModelRef,
    evaluation: ArtifactRef,
    source: Fold,
    target: Fold,
    config: EvaluationConfig,
    execution: ExecutionConfig,
) -> dict[str, Any]:
    """Measure a target's test questions that an evaluation on the source has not seen.

    They are measured unsteered and with the evaluation's spec, if it found one.
    """
    use_threads(execution)
    data, split = target.load()
    questions = leak_free_questions(*source.load(), data, split)
    found: dict[str, Any] = {"questions": asdict(questions), "steered": None, "unsteered": None}
    facts: dict[str, Any] = {"questions": len(questions.kept)}
    if questions.kept:
        loaded = model.load(execution)
        # Nothing is tuned on the target, so that nothing of it is encoded but what is tested.
        part = FoldSplit(train=(), validation=(), test=questions.kept)
        evaluator = Evaluator(loaded, data, part, config, VerdictMemory(Home.current()))
        folder = store().open(evaluation) / references.SPEC
        spec = SteeringSpec.load(folder) if folder.is_dir() else None
        for name, how in (("steered", spec), ("unsteered", None)):
            measurement = evaluator.measure("test", how)
            found[name] = asdict(measurement) | {"metrics": measurement.metrics()}
        if spec is not None:
            found |= {"top_k": len(spec.modules), "alpha": spec.alpha}
        facts["device"] = str(loaded.device)
    (out / references.MEASURED).write_text(json.dumps(found))
    return facts
