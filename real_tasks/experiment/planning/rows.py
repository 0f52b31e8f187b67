"""A plan as a value, and as rows for people and machines."""

from dataclasses import dataclass
from typing import Any

from real_tasks.experiment.planning.costs import ModelSize
from real_tasks.vocabulary.types import ModuleKind

Row = dict[str, Any]


@dataclass(frozen=True)
class StagePlan:
    """A stage: its tasks, the tokens through the language model, and the FLOPs of all its tasks."""

    stage: str
    tasks: int
    model_tokens: float = 0.0
    model_flops: float = 0.0
    localizer_flops: float = 0.0

    @property
    def flops(self) -> float:
        """FLOPs of all its tasks."""
        return self.model_flops + self.localizer_flops


@dataclass(frozen=True)
class Plan:
    """What an experiment will take: bytes as of `costs`, tasks and FLOPs by stage.

    Attributes:
        modules: of every kind that is read.
        samples: answers whose activations are read.
        sample_shards: into which they are cut, for each kind.
        activation_bytes: of the stored activations.
        shard_bytes: of main memory, for a shard of samples until it is written.
        extraction_bytes, localizer_bytes, evaluation_bytes: peak memory of reading activations, of
            the largest shard of modules of all localizers, of measuring a steered model.
        stages: in the order in which they run.
    """

    modules: dict[ModuleKind, int]
    samples: int
    sample_shards: int
    activation_bytes: int
    shard_bytes: int
    extraction_bytes: int
    localizer_bytes: int
    evaluation_bytes: int
    model: ModelSize
    stages: tuple[StagePlan, ...]

    @property
    def flops(self) -> float:
        """FLOPs of all stages."""
        return sum(stage.flops for stage in self.stages)


def plan_rows(plan: Plan) -> list[Row]:
    """Return what is needed as rows of what, value and unit."""
    found: list[tuple[str, float, str]] = [
        *((f"{kind} modules", count, "modules") for kind, count in plan.modules.items()),
        ("samples", plan.samples, "answers"),
        ("sample shards", plan.sample_shards, "shards of each kind"),
        ("stored activations", plan.activation_bytes, "bytes"),
        ("a shard of samples, main memory", plan.shard_bytes, "bytes"),
        ("model", plan.model.parameters, "parameters"),
        ("model's weights", plan.model.weight_bytes, "bytes"),
        ("extraction, peak memory", plan.extraction_bytes, "bytes"),
        ("localizer, peak memory", plan.localizer_bytes, "bytes"),
        ("evaluation, peak memory", plan.evaluation_bytes, "bytes"),
    ]
    return [{"what": what, "value": value, "unit": unit} for what, value, unit in found]


def stage_rows(plan: Plan) -> list[Row]:
    """Return a row a stage and one of them all: tasks, tokens through the model, FLOPs."""
    names = ("tasks", "model_tokens", "flops")
    stages = [
        {"stage": one.stage, **{name: getattr(one, name) for name in names}} for one in plan.stages
    ]
    return [*stages, {"stage": "all", **{name: sum(s[name] for s in stages) for name in names}}]


def fit_sentences(plan: Plan, memory: float) -> list[str]:
    """Say, of every step that needs more than a device's bytes of memory, how to mend it."""
    needs = {
        "extraction": (plan.extraction_bytes, "lower extraction.batch_tokens"),
        "scoring a layer": (plan.localizer_bytes, "score fewer answers"),
        "evaluation": (plan.evaluation_bytes, "lower evaluation.batch_tokens"),
    }
    spread = "spread the model over several devices with execution.device_map=auto"
    too_large = plan.model.weight_bytes > memory
    return [
        f"{what} needs about {needed / 1e9:.0f} GB, but a device has "
        f"{memory / 1e9:.0f} GB: {spread if too_large else mend}"
        for what, (needed, mend) in needs.items()
        if needed > memory
    ]
