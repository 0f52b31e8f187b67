"""A plan as a value, and as rows for people and machines."""

from dataclasses import dataclass
from typing import Any

from real_tasks.planning.costs import ModelSize
from real_tasks.vocabulary.types import ModuleKind

Row = dict[str, Any]


@dataclass(frozen=True)
class StagePlan:
    """A stage: its tasks, the tokens through the language model, and the FLOPs of all its tasks.

    `model_flops`, of the language model, are None where its size is not known.
    """

    stage: str
    tasks: int
    model_tokens: float = 0.0
    model_flops: float | None = 0.0
    localizer_flops: float = 0.0

    @property
    def flops(self) -> float | None:
        """FLOPs of all its tasks; None where they are not known."""
        return None if self.model_flops is None else self.model_flops + self.localizer_flops


@dataclass(frozen=True)
class Plan:
    """What an experiment will take.

    Attributes:
        modules: of every kind that is read.
        samples: answers whose activations are read.
        sample_shards: into which they are cut, for each kind.
        activation_bytes: of the stored activations, see `costs.activation_bytes`.
        shard_bytes: of main memory, for a shard of samples until it is written.
        extraction_bytes: peak memory of reading activations; None without the model's size.
        localizer_bytes: peak memory of the largest shard of modules, of all localizers.
        evaluation_bytes: peak memory of measuring a steered model; None without the model's size.
        model: size of the language model, where it is known.
        stages: in the order in which they run.
    """

    modules: dict[ModuleKind, int]
    samples: int
    sample_shards: int
    activation_bytes: int
    shard_bytes: int
    extraction_bytes: int | None
    localizer_bytes: int
    evaluation_bytes: int | None
    model: ModelSize | None
    stages: tuple[StagePlan, ...]

    @property
    def flops(self) -> float | None:
        """FLOPs of all stages; None where those of one are not known."""
        known = [stage.flops for stage in self.stages if stage.flops is not None]
        return sum(known) if len(known) == len(self.stages) else None


def plan_rows(plan: Plan) -> list[Row]:
    """Return what is needed as rows of what, value and unit; a value not known is None."""
    model = plan.model
    found: list[tuple[str, float | None, str]] = [
        *((f"{kind} modules", count, "modules") for kind, count in plan.modules.items()),
        ("samples", plan.samples, "answers"),
        ("sample shards", plan.sample_shards, "shards of each kind"),
        ("stored activations", plan.activation_bytes, "bytes"),
        ("a shard of samples, main memory", plan.shard_bytes, "bytes"),
        ("model", model.parameters if model else None, "parameters"),
        ("model's weights", model.weight_bytes if model else None, "bytes"),
        ("extraction, peak memory", plan.extraction_bytes, "bytes"),
        ("localizer, peak memory", plan.localizer_bytes, "bytes"),
        ("evaluation, peak memory", plan.evaluation_bytes, "bytes"),
    ]
    return [{"what": what, "value": value, "unit": unit} for what, value, unit in found]


def stage_rows(plan: Plan) -> list[Row]:
    """Return a row a stage and one of them all: tasks, tokens through the model, FLOPs."""
    stages = plan.stages
    tasks, tokens = sum(one.tasks for one in stages), sum(one.model_tokens for one in stages)
    everything = ("all", tasks, tokens, plan.flops)
    rows = [*((s.stage, s.tasks, s.model_tokens, s.flops) for s in stages), everything]
    return [
        dict(zip(("stage", "tasks", "model_tokens", "flops"), row, strict=True)) for row in rows
    ]


def fit_sentences(plan: Plan, memory: float) -> list[str]:
    """Say, of every step that needs more than a device's bytes of memory, how to mend it."""
    needs = {
        "extraction": (plan.extraction_bytes, "lower extraction.batch_tokens"),
        "scoring a layer": (plan.localizer_bytes, "score fewer answers"),
        "evaluation": (plan.evaluation_bytes, "lower evaluation.batch_tokens"),
    }
    spread = "spread the model over several devices with execution.device_map=auto"
    sentences = []
    for what, (needed, mend) in needs.items():
        if needed is not None and needed > memory:
            too_large = plan.model is not None and plan.model.weight_bytes > memory
            sentences.append(
                f"{what} needs about {needed / 1e9:.0f} GB, but a device has "
                f"{memory / 1e9:.0f} GB: {spread if too_large else mend}"
            )
    return sentences
