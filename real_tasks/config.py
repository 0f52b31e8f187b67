"""The configuration of an experiment: frozen, closed to unknown keys, every field described."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from real_tasks.types import TokenScope

PositiveInt = Annotated[int, Field(ge=1)]


class Frozen(BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlugIn(Frozen):
    """A plug-in by its registered name, with its own parameters."""

    name: str = Field(description="registered name")
    params: dict[str, Any] = Field(default={}, description="parameters of that plug-in")


class ModelConfig(Frozen):
    """Which causal language model to read and steer."""

    path: str = Field(
        "demo", description="folder of a Hugging Face checkpoint, or the name of an embedded model"
    )
    params: dict[str, Any] = Field(
        {}, description="parameters of an embedded model; none for a checkpoint"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="type of the weights in memory"
    )

    @property
    def name(self) -> str:
        """The name in tables: the embedded model's, or the last part of the path."""
        return Path(self.path).name


class DataConfig(Frozen):
    """How questions are split. Questions, never single answers, go into folds."""

    n_folds: Annotated[int, Field(ge=2)] = Field(2, description="folds of the cross-validation")
    validation_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.34,
        description="share of the questions outside the test fold kept for choosing K and alpha",
    )
    split_seed: int = Field(42, description="seed of the draw of the validation questions")
    shuffle_labels: bool = Field(
        False,
        description="permute the labels: a null control, whose held-out AUCs must be near 0.5",
    )


class ExtractionConfig(Frozen):
    """How activations are read and stored."""

    samples_per_shard: PositiveInt = Field(1024, description="answers in a Parquet shard")
    batch_tokens: PositiveInt = Field(8192, description="tokens in a batch, padding included")
    dtype: Literal["float16", "float32"] = Field("float16", description="stored type")


class EvaluationConfig(Frozen):
    """How a steered model is judged. K and alpha are chosen on validation questions only."""

    top_k: tuple[PositiveInt, ...] = Field(
        (4, 8, 16), min_length=1, description="numbers of modules to choose from (K)"
    )
    alphas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.6, 1.2, 1.8, 2.4, 3.2, 4.9),
        min_length=1,
        description="steering strengths to choose from, in standard deviations along the direction",
    )
    max_kl: Annotated[float, Field(gt=0)] = Field(
        0.05, description="cap on KL(original || steered) on neutral text, nats per token"
    )
    objective: tuple[Literal["mc0", "mc1", "mc2", "mc3", "true_share"], ...] = Field(
        ("mc1", "mc2", "true_share"),
        min_length=1,
        description="metrics whose sum on validation questions decides K and alpha",
    )
    matched_kl: Annotated[float, Field(gt=0)] = Field(
        0.02, description="KL at which methods are compared like for like, nats per token"
    )
    token_scope: TokenScope = Field("all", description="positions that are steered")
    max_new_tokens: PositiveInt = Field(50, description="length limit of a generated answer")
    judge: str = Field("exact_match", description="who calls a generation true, false or neither")
    batch_tokens: PositiveInt = Field(16384, description="tokens in a batch, padding included")
    bootstrap_samples: PositiveInt = Field(2000, description="resamples of a confidence interval")


class ExecutionConfig(Frozen):
    """Where and how wide to run. Changes no result beyond rounding, and so no cache key."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    max_workers: int = Field(0, ge=0, description="tasks at a time; 0: one per processor core")
    retries: int = Field(2, ge=0, description="further tries of a task that failed")


class ExperimentConfig(Frozen):
    """An experiment: find the modules that carry a behaviour, steer through them, and measure."""

    model: ModelConfig = Field(ModelConfig(), description="the language model")
    behaviour: PlugIn = Field(PlugIn(name="demo_truth"), description="the behaviour to steer")
    data: DataConfig = Field(DataConfig(), description="folds and splits")
    extraction: ExtractionConfig = Field(ExtractionConfig(), description="reading of activations")
    localizer: PlugIn = Field(PlugIn(name="real"), description="what ranks the modules")
    baselines: tuple[PlugIn, ...] = Field(
        (PlugIn(name="iti"), PlugIn(name="random")),
        description="localizers to compare with, on the same data",
    )
    methods: tuple[str, ...] = Field(
        ("unsteered", "real", "real_equal_weights", "iti", "random", "all", "random_direction"),
        min_length=1,
        description="ways of steering to evaluate",
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds of the localizers")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="measurements")
    execution: ExecutionConfig = Field(ExecutionConfig(), description="where it runs")

    def without_execution(self) -> "ExperimentConfig":
        """Return what decides the results: the same, wherever and however wide it runs."""
        return self.model_copy(update={"execution": ExecutionConfig()})
