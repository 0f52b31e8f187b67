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
from real_tasks.vocabulary.errors import OverflowedError
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

    They are measured unsteered and with the evaluation's spec, if it found one and the steered
    model stays within the range of its type on them.
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
        folder = store().open(evaluation) / references.SPEC
        spec = SteeringSpec.load(folder) if folder.is_dir() else None
        share = spec is None or spec.intervention().shares_prompts
        evaluator = Evaluator(loaded, data, part, config, VerdictMemory(Home.current()), share)
        if spec is not None:
            found |= {"top_k": len(spec.modules), "alpha": spec.alpha}
        for name, how in (("steered", spec), ("unsteered", None)):
            try:
                measurement = evaluator.measure("test", how)
            except OverflowedError:  # of the unsteered model, it is another error
                continue
            found[name] = asdict(measurement) | {"metrics": measurement.metrics()}
        facts["device"] = str(loaded.device)
    (out / references.MEASURED).write_text(json.dumps(found))
    return facts
