"""The configuration of an experiment: frozen, closed to unknown keys, every field described."""

import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from real_tasks.vocabulary.config_forms import OneOf, field_title, model_title
from real_tasks.vocabulary.types import ModuleKind, TokenScope

_UNTELLING = re.compile(
    r"((global_?)?(checkpoint|ckpt|step|epoch|iter)[-_]?\d*|model|merged|final|last|latest|best|hf|out(put)?)",
    re.IGNORECASE,
)
"""Names of folders that say nothing of the model in them."""
MOST = 2**63 - 1
"""Largest whole number that tables hold."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

PositiveInt = Annotated[int, Field(ge=1, le=10**12)]
Resamples = Annotated[int, Field(ge=1, le=100_000)]
"""Of a confidence interval; more take gigabytes and change no digit that is shown."""
Seed = Annotated[int, Field(ge=0)]
Strength = Annotated[float, Field(gt=0, le=1e9)]
"""In standard deviations along the direction."""
RunnerName = Literal["thread", "ray", "dask"]


def _values(given: Any) -> Iterator[Any]:
    """Yield numbers and texts at any depth, keys of mappings too."""
    if isinstance(given, dict):
        given = (*given.keys(), *given.values())
    if isinstance(given, list | tuple):
        for inner in given:
            yield from _values(inner)
    else:
        yield given


class Frozen(BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        field_title_generator=field_title,
        model_title_generator=model_title,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_stored(cls, given: Any, info: ValidationInfo) -> Any:
        """Refuse what tables, paths and seeds cannot hold.

        A form sends an empty text for one that was emptied: there it means that nothing is given.
        """
        field = cls.model_fields[str(info.field_name)]
        if given == "" and field.default is None:
            return None
        kinds = (field.annotation, *get_args(field.annotation))
        if any(isinstance(one, type) and issubclass(one, BaseModel) for one in kinds):
            return given  # It looks at its own fields, and says which of them is wrong.
        for value in _values(given):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError("expected a finite number")
            if isinstance(value, int) and not -MOST <= value <= MOST:
                raise ValueError("expected a number of at most 63 bits")
            if isinstance(value, str) and _UNSTORABLE.search(value):
                raise ValueError("expected a text without NUL and of whole characters")
        return given


class PlugIn(Frozen):
    """A plug-in by its registered name, with its own parameters; the name alone stands for it."""

    name: str = Field(description="registered name")
    params: dict[str, Any] = Field(
        default={},
        title="Parameters",
        description="its parameters; those left out take their defaults",
    )

    @property
    def own_name(self) -> str:
        """The name that a user gave it by a parameter `name`, or else the registered one."""
        return str(self.params.get("name") or self.name)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class KnownShape(Frozen):
    """The shape of a model, to plan with while its checkpoint is not there."""

    n_layers: PositiveInt = Field(title="Number of layers", description="transformer blocks")
    n_heads: PositiveInt = Field(
        title="Number of heads", description="attention (query) heads of a block"
    )
    head_dim: PositiveInt = Field(description="width of a head")
    d_model: PositiveInt = Field(
        title="Width of the residual stream", description="width of the residual stream"
    )
    parameters: PositiveInt | None = Field(
        None, description="weights in all; without, 12 x layers x d_model^2 are assumed"
    )


class ModelConfig(Frozen):
    """Which causal language model to read and steer."""

    path: str = Field(
        "demo",
        description="Hugging Face id (org/name), folder of a checkpoint, or embedded model",
    )
    params: dict[str, Any] = Field(
        {}, title="Parameters", description="parameters of an embedded model; none for a checkpoint"
    )
    revision: str | None = Field(
        None, description="branch, tag or commit of a Hugging Face id; its main branch without"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", title="Number format", description="type of the weights in memory"
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", title="Attention", description="how attention is computed"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with the checkpoint; only if you trust it"
    )
    chat_template: bool = Field(
        False, description="put every prompt into the tokenizer's chat template"
    )
    system_prompt: str = Field("", description="what the system says, in the chat template")
    template_arguments: dict[str, Any] = Field(
        {}, description="what else the chat template is given, as enable_thinking: false"
    )
    thinking: Literal["refuse", "closed"] = Field(
        "refuse",
        description="where the chat template opens a thinking block for the assistant: refuse the "
        "model, or have the block closed, so that it answers at once",
    )
    template_date: date | None = Field(
        None,
        description="day for a chat template that writes today's date; that on which the run is "
        "started where it is not said",
    )
    shape: KnownShape | None = Field(
        None,
        description="shape to plan with without the checkpoint; checked against it when it loads",
    )

    @property
    def name(self) -> str:
        """The name in tables: the embedded model's, or the last part of the path.

        A folder that trainers call alike has the one above it before its name, as in
        ``llama-tuned/checkpoint-100``; one of the Hub's cache is called as its model is.
        """
        parts = Path(self.path).absolute().parts
        cached = [part for part in parts if part.startswith("models--")]
        if cached and "snapshots" in parts:
            return cached[-1].split("--")[-1]
        return "/".join(parts[-2:] if _UNTELLING.fullmatch(parts[-1]) else parts[-1:])


class DataConfig(Frozen):
    """How questions are split. Questions, never single answers, go into folds."""

    n_folds: Annotated[int, Field(ge=2)] = Field(
        2, title="Number of folds", description="folds of the cross-validation"
    )
    validation_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.34,
        description="share of the questions outside the test fold kept for choosing K and alpha",
    )
    split_seed: Seed = Field(42, description="seed of the draw of the validation questions")
    limit: PositiveInt | None = Field(
        None, description="use only so many questions, evenly spaced over the data; all without"
    )
    shuffle_labels: bool = Field(
        False,
        description="permute the labels: a null control, whose held-out AUCs must be near 0.5",
    )


class ExtractionConfig(Frozen):
    """How activations are read and stored."""

    samples_per_shard: PositiveInt = Field(1024, description="answers in a Parquet shard")
    batch_tokens: PositiveInt = Field(8192, description="tokens in a batch, padding included")
    dtype: Literal["float16", "float32"] = Field(
        "float16", title="Number format", description="stored type"
    )


class EvaluationConfig(Frozen):
    """How a steered model is judged. K and alpha are chosen on validation questions only."""

    top_k: tuple[PositiveInt, ...] = Field(
        (4, 8, 16),
        min_length=1,
        title="K (modules)",
        description="numbers of modules to choose from (K)",
    )
    alphas: tuple[Strength, ...] = Field(
        (0.6, 1.2, 1.8, 2.4, 3.2, 4.9),
        title="Alphas (strengths)",
        min_length=1,
        description="steering strengths to choose from, in standard deviations along the direction",
    )
    max_kl: Annotated[float, Field(gt=0)] = Field(
        0.05,
        title="Max KL",
        description="cap on KL(original || steered) on neutral text, nats per token",
    )
    measures: Annotated[tuple[str, ...], OneOf("measure")] = Field(
        (),
        title="Measures (none named: the behaviour's)",
        description="what is measured of the questions; empty: what the behaviour names",
    )
    objective: tuple[str, ...] = Field(
        (),
        title="Objective (none named: that of the measures)",
        description="metrics whose sum on validation questions decides K and alpha; empty: those "
        "that the measures name",
    )
    matched_kl: Annotated[float, Field(gt=0)] = Field(
        0.02,
        title="KL of comparison",
        description="KL at which methods are compared like for like, nats per token",
    )
    token_scope: TokenScope = Field("all", description="positions that are steered")
    max_new_tokens: PositiveInt = Field(50, description="length limit of a generated answer")
    judge: Annotated[PlugIn, OneOf("judge")] = Field(
        PlugIn(name="exact_match"), description="who calls a generation true, false or neither"
    )
    neutral: str = Field(
        "",
        title="Neutral text",
        description="text on which side effects are measured: a text file, or a Hub data set as "
        "hub:org/name:config:split:column; empty: the behaviour's own",
    )
    neutral_texts: PositiveInt = Field(
        64, description="most texts taken from it, each cut to 256 tokens"
    )
    lm_eval_tasks: tuple[str, ...] = Field(
        (),
        title="Tasks of lm-evaluation-harness",
        description="tasks of lm-evaluation-harness to run on the tuned model (extra lm-eval)",
    )
    lm_eval_limit: PositiveInt | None = Field(
        None,
        title="Questions of each such task",
        description="questions of each such task; all without",
    )
    batch_tokens: PositiveInt = Field(16384, description="tokens in a batch, padding included")
    bootstrap_samples: Resamples = Field(2000, description="resamples of a confidence interval")


class ExecutionConfig(Frozen):
    """Where and how wide to run. Changes no result beyond rounding, and so no cache key."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    device_map: str | None = Field(
        None,
        description="spread one model over all devices: auto or balanced (extra large); "
        "device then says where all else is computed",
    )
    max_workers: int = Field(
        0, ge=0, le=10_000, description="tasks at a time; 0: one per processor core"
    )
    runner: RunnerName = Field(
        "thread",
        description="what shards of work run on: thread (of this process), ray or dask (processes, "
        "on one machine or many; extras ray and dask)",
    )
    address: str | None = Field(
        None,
        description="existing Ray or Dask cluster to use, as ray://HOST:10001, auto (the Ray "
        "cluster that this machine is in) or tcp://HOST:8786; without, one is started here",
    )
    cpus_per_task: PositiveInt = Field(
        1,
        title="CPUs per task",
        description="processor cores, and so threads of torch, of a task on Ray or Dask",
    )
    gpus_per_task: Annotated[float, Field(ge=0)] | None = Field(
        None,
        title="GPUs per task",
        description="GPUs of a task on Ray or Dask; without: one on Ray where the nodes have GPUs",
    )
    retries: int = Field(2, ge=0, le=100, description="further tries of a task that failed")


class ExperimentConfig(Frozen):
    """An experiment: find the modules that carry a behaviour, steer through them, and measure."""

    model: ModelConfig = Field(ModelConfig(), description="the language model")
    behaviour: Annotated[PlugIn, OneOf("behaviour")] = Field(
        PlugIn(name="demo_truth"),
        description="the behaviour to steer; jsonl reads your own questions, with the parameters "
        '{"path": "questions.jsonl"}',
    )
    module_kind: ModuleKind = Field(
        "head",
        description="what is scored and steered: head (input of the attention's output "
        "projection), layer (residual stream after a block), mlp (output of a block's MLP)",
    )
    data: DataConfig = Field(DataConfig(), description="folds and splits")
    extraction: ExtractionConfig = Field(ExtractionConfig(), description="reading of activations")
    localizer: Annotated[PlugIn, OneOf("localizer")] = Field(
        PlugIn(name="real"), description="what ranks the modules"
    )
    baselines: Annotated[tuple[PlugIn, ...], OneOf("localizer")] = Field(
        (PlugIn(name="iti"), PlugIn(name="causal"), PlugIn(name="random")),
        description="localizers to compare with, on the same data; causal steers with each module "
        "alone, which takes long in a large model",
    )
    methods: tuple[str, ...] = Field(
        (),
        title="Methods (none named: all)",
        description="ways of steering to evaluate; empty: all that the localizers make possible",
    )
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="seeds of the localizers")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="measurements")
    execution: ExecutionConfig = Field(ExecutionConfig(), description="where it runs")

    @property
    def label(self) -> str:
        """Model, behaviour and seeds, for the name of a flow run."""
        seeds = ",".join(map(str, self.seeds))
        return f"{self.model.name} {self.behaviour.own_name} seed {seeds}"

    def without_execution(self) -> "ExperimentConfig":
        """Return what decides the results: the same, wherever and however wide it runs."""
        return self.model_copy(update={"execution": ExecutionConfig()})


class TransferConfig(Frozen):
    """Zero-shot transfer: what was found on one behaviour, its source, steers another, its target.

    Every behaviour is a source and a target. K and alpha are the source's own, tuned on its
    validation questions; nothing is chosen on the target.
    """

    experiment: ExperimentConfig = Field(
        ExperimentConfig(),
        description="what all behaviours share; its own behaviour and methods are not used",
    )
    behaviours: Annotated[tuple[PlugIn, ...], OneOf("behaviour")] = Field(
        min_length=2, description="the behaviours to carry over from and to, each with each"
    )
    method: str = Field(
        "", description="way of steering that is carried over; empty: the localizer's own"
    )
    metrics: tuple[str, ...] = Field(
        (),
        title="Metrics (none named: all)",
        description="metrics of the table; empty: all that the measures of a target give",
    )

    @property
    def label(self) -> str:
        """Model, behaviours and seeds, for the name of a flow run."""
        names = "+".join(behaviour.own_name for behaviour in self.behaviours)
        seeds = ",".join(map(str, self.experiment.seeds))
        return f"{self.experiment.model.name} {names} seed {seeds}"


DEMO_TRANSFER = TransferConfig(behaviours=(PlugIn(name="demo_truth"), PlugIn(name="demo_options")))
