"""The outcome of an experiment: references to all that its stages made, and the rows they give."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from real_tasks.evaluation.record import OVERFLOWS
from real_tasks.experiment.methods.known import methods_of, said_methods
from real_tasks.export.targets import can
from real_tasks.results.grids import SMALLER, grid_warnings
from real_tasks.results.rows import (
    Evaluation,
    Row,
    answer_rows,
    columns,
    comparison_rows,
    evaluation_rows,
    method_rows,
    sample_rows,
    score_rows,
    selected_rows,
    text_score_rows,
)
from real_tasks.steering.spec import SteeringSpec
from real_tasks.tasks.cache.stage import store
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import Frozen, ModelConfig
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import BehaviourData, ModuleKind
from storage.artifacts.store import ArtifactRef

Activations = dict[ModuleKind, tuple[ArtifactRef, ...]]
"""Shards of samples, by the kind of module."""


class Scores(Frozen):
    """A localizer's scores of all modules of a kind on one fold with one seed, by shards."""

    localizer: str
    kind: ModuleKind
    fold: int
    seed: int
    shards: tuple[ArtifactRef, ...]


def module_score_rows(scores: Sequence[Scores]) -> list[Row]:
    """Return the rows of ``module_scores``, without run, model and behaviour."""
    return [
        row
        for item in scores
        for row in score_rows(
            item.localizer, item.fold, item.seed, references.load_scores(item.shards)
        )
    ]


class MethodEvaluation(Frozen):
    """A method's evaluation on one fold with one seed."""

    method: str
    fold: int
    seed: int
    evaluation: ArtifactRef


class Transferred(Frozen):
    """One fold and seed of a target behaviour, measured with the spec found on a source."""

    source: str
    target: str
    fold: int
    seed: int
    measured: ArtifactRef


class Outcome(Frozen):
    """References to everything that an experiment made."""

    checkpoint: ArtifactRef
    dataset: ArtifactRef
    activations: Activations
    scores: tuple[Scores, ...]
    evaluations: tuple[MethodEvaluation, ...]

    def model(self, config: ModelConfig) -> ModelRef:
        """Return the model that all of it was made with."""
        return ModelRef(config=config, checkpoint=self.checkpoint)


@dataclass(frozen=True)
class OutcomeTables:
    """The rows of every table but `runs`, read once."""

    config: ExperimentConfig
    outcome: Outcome

    @cached_property
    def data(self) -> BehaviourData:
        """The behaviour's data."""
        return references.load_dataset(self.outcome.dataset)

    @cached_property
    def evaluations(self) -> list[tuple[MethodEvaluation, Evaluation]]:
        """Every evaluation with its content."""
        return [
            (item, references.load_evaluation(item.evaluation)) for item in self.outcome.evaluations
        ]

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The rows by table, without the columns `run_id`, `model` and `behaviour`."""
        methods = methods_of(self.config)
        scopes = {method.name: str(method.scope) for method in methods}
        tables: dict[str, list[Row]] = {
            "samples": sample_rows(self.data, self.config.data.n_folds),
            "module_scores": module_score_rows(self.outcome.scores),
            "selected_modules": [],
            "evaluations": [],
            "answers": [],
        }
        by_method: dict[str, list[Evaluation]] = {}
        facts: dict[str, list[dict[str, Any]]] = {}
        for item, content in self.evaluations:
            which = (item.method, item.fold, item.seed)
            by_method.setdefault(item.method, []).append(content)
            facts.setdefault(item.method, []).append(_facts(item.evaluation))
            tables["selected_modules"] += selected_rows(*which, content)
            tables["evaluations"] += evaluation_rows(*which, scopes[item.method], content)
            tables["answers"] += answer_rows(*which, self.data, content)
        tables["methods"] = method_rows(
            [method.columns for method in methods],
            {name: said.paper for name, said in said_methods(self.config).items()},
            {item.method for item, content in self.evaluations if content.get("bounded")},
            facts,
        )
        tables["comparisons"] = comparison_rows(
            self.config.localizer.name, by_method, self.config.evaluation.bootstrap_samples
        )
        return tables

    def published(self, run_id: str) -> dict[str, list[Row]]:
        """Return the rows as the tables declare them."""
        behaviour = {"behaviour": self.data.name}
        model = self.outcome.model(self.config.model).columns
        further = {
            "samples": {},
            "module_scores": {"run_id": run_id, **model, **behaviour},
            "selected_modules": {"run_id": run_id},
            "evaluations": {"run_id": run_id, **model, **behaviour},
            "methods": {"run_id": run_id},
            "answers": {"run_id": run_id},
            "comparisons": {"run_id": run_id, **behaviour},
        }
        published = {name: columns(self.rows[name], **of) for name, of in further.items()}
        words = text_score_rows(self.data, self.config.data)
        return published | {"text_scores": columns(words, run_id=run_id, **behaviour)}

    def _overflows(self) -> list[str]:
        """Name the strengths that overflow, of each method."""
        alphas: dict[str, set[float]] = {}
        for item, content in self.evaluations:
            found = {one["alpha"] for one in content["validation"] if OVERFLOWS in one["metrics"]}
            if found:
                alphas.setdefault(item.method, set()).update(found)
        dtype = self.config.model.dtype
        return [
            f"{method}: "
            + ("every setting overflows" if _all_overflow(self, method) else "steering overflows")
            + f" {dtype} with alpha {', '.join(f'{alpha:g}' for alpha in sorted(found))} in some "
            f"fold, which is ruled out there; {smaller_alphas(dtype)}"
            for method, found in sorted(alphas.items())
        ]

    def _short_grids(self) -> list[str]:
        """Say of which methods the grid was too short, but for those that overflow throughout."""
        found = []
        for method in methods_of(self.config):
            made = [content for item, content in self.evaluations if item.method == method.name]
            given = method.strengths, method.largest_strength, self.config.evaluation.max_kl, made
            if not _all_overflow(self, method.name):
                found += grid_warnings(method.name, *given)
        return found

    def _unanswered(self) -> list[str]:
        """Count the empty answers of a chat: there a model may think up to the limit of tokens."""
        if not self.config.model.chat_template:
            return []
        said = [row["generation"] for row in self.rows["answers"]]
        empty = sum(not text for text in said)
        if not empty:
            return []
        return [
            f"{empty} of {len(said)} generated answers are empty: thinking that does not end "
            "within evaluation.max_new_tokens counts as no answer; switch it off by "
            "model.template_arguments, or allow more tokens"
        ]

    def warnings(self) -> list[str]:
        """Return what a reader must know before trusting the numbers."""
        found = [*self._overflows(), *self._short_grids()]
        bounded = [row["method"] for row in self.rows["methods"] if row["bounded"]]
        if bounded:
            found.append(
                f"{', '.join(bounded)}: every strength costs less than evaluation.matched_kl on "
                "neutral text in some fold, so that it is not compared at equal KL (bounded)"
            )
        found += self._unanswered()
        if self.config.data.shuffle_labels:
            found.append("labels are shuffled (data.shuffle_labels): this is a null control")
        return found


def _facts(evaluation: ArtifactRef) -> dict[str, Any]:
    """Return what the stage noted of an evaluation, and whether its steering bakes."""
    facts, folder = store().facts(evaluation), store().open(evaluation) / references.SPEC
    if not folder.is_dir() or "model_type" not in facts:
        return facts
    support = can(SteeringSpec.load(folder), "bake", facts["model_type"])
    return {**facts, "bakes": support.verdict == "exactly"}


def smaller_alphas(dtype: str) -> str:
    """Return what to do where steering overflows a type of weights."""
    mend = ", or set model.dtype to bfloat16" if dtype == "float16" else ""
    return f"{SMALLER}{mend}"


def _all_overflow(tables: OutcomeTables, method: str) -> bool:
    """Say whether every setting of a method overflows, on every fold with every seed."""
    return all(
        OVERFLOWS in setting["metrics"]
        for item, content in tables.evaluations
        for setting in content["validation"]
        if item.method == method and setting["alpha"] is not None
    )
