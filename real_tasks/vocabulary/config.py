"""Parts of configurations: frozen, closed to unknown keys, every field described."""

import math
import os
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from real_tasks.vocabulary.config_forms import field_title, model_title

_UNTELLING = re.compile(
    r"((global|checkpoint|ckpt|steps?|epochs?|iter(ation)?|models?|merged|final|last|latest|best|hf|"
    r"out(put)?|results?|weights|adapter|lora|saved?|export(ed)?|pytorch|safetensors|"
    r"\d+(?!\d))[-_=.]?)+",
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


class Configured:
    """What is made from validated parameters, as plug-ins are.

    Attributes:
        Params: its parameters.
    """

    Params: ClassVar[type[Frozen]] = Frozen

    def __init__(self, params: Any) -> None:
        """Keep the parameters, an instance of ``Params``."""
        self.params = params


class PlugIn(Frozen):
    """A plug-in by its registered name, with its own parameters; the name alone stands for it."""

    name: str = Field(description="registered name")
    params: dict[str, Any] = Field(
        default={},
        title="Parameters",
        description="its parameters; those left out take their defaults",
    )

    def __hash__(self) -> int:
        """Hash the parameters, whatever they are, by their text."""
        return hash(self.model_dump_json())

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
    d_mlp: int = Field(
        0,
        ge=0,
        le=10**12,
        title="Neurons of a block",
        description="neurons of a block's MLP; only module_kind neuron asks for them",
    )
    parameters: PositiveInt | None = Field(
        None, description="weights in all; without, 12 x layers x d_model^2 are assumed"
    )


class ModelConfig(Frozen):
    """Which causal language model to read and steer."""

    path: str = Field(
        "demo",
        description="Hugging Face id (org/name), folder of a checkpoint, GGUF file, smollm2 "
        "(SmolLM2-135M-Instruct, fetched once), or embedded model",
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
        """The name in tables: the embedded model's, or the last part of the path, without .gguf.

        A folder that trainers call alike has those above it before its name, up to one that tells,
        as in ``llama-tuned/checkpoint-100``; one of the Hub's cache is called as its model is.
        """
        path = self.path.removesuffix(".gguf")
        parts = Path(os.path.normpath(Path(path).absolute())).parts
        cached = [part for part in parts if part.startswith("models--")]
        if cached and "snapshots" in parts:
            return cached[-1].split("--")[-1]
        telling = [n for n, part in enumerate(parts) if n and not _UNTELLING.fullmatch(part)]
        return "/".join(parts[telling[-1] if telling else 1 :]) or self.path


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
