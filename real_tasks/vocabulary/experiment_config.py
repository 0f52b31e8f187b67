"""The configuration of an experiment, and of a transfer."""

from typing import Annotated, Literal

from pydantic import Field

from real_tasks.vocabulary.config import (
    DataConfig,
    ExecutionConfig,
    ExtractionConfig,
    Frozen,
    ModelConfig,
    PlugIn,
    PositiveInt,
    Resamples,
    Seed,
)
from real_tasks.vocabulary.config_forms import OneOf
from real_tasks.vocabulary.method_config import MethodConfig, Strength
from real_tasks.vocabulary.types import ModuleKind, TokenScope


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
        description="steering strengths to choose from, in standard deviations along the "
        "direction; where none stays under the cap on KL, halves of the smallest are tried",
    )
    max_kl: Annotated[float, Field(gt=0)] = Field(
        0.05,
        title="Max KL",
        description="cap on KL(original || steered) on neutral text, nats per token; of a method "
        "behind a gate also on prompts, as steering may cost nothing where the gate is closed",
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
    max_generation_perplexity: Annotated[float, Field(gt=0)] | None = Field(
        None,
        title="Max perplexity of answers",
        description="cap on the perplexity that generated answers have under the unsteered model, "
        "as a multiple of that of its own answers (1.5, say); needs the measure generation",
    )
    search: Literal["grid", "race"] | None = Field(
        None,
        title="Search (none named: grid for embedded models, race for others)",
        description="how K and alpha are found: grid measures all settings on all validation "
        "questions; race rules settings out early, by a KL on few texts that is far over the cap "
        "or by fewer questions, and chooses the same or one that all questions hardly tell from it",
    )
    matched_kl: Annotated[float, Field(gt=0)] = Field(
        0.02,
        title="KL of comparison",
        description="KL at which methods are compared like for like, nats per token",
    )
    token_scope: TokenScope = Field(
        "all",
        description="positions that are steered: all; generated, which leaves the first new token "
        "as it was, as it is predicted at the prompt's end; last, which steers that one too",
    )
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
        "projection), layer (residual stream after a block), mlp (output of a block's MLP), "
        "attention (output of its projection), neuron (one input of the MLP's last projection), "
        "residual_in and residual_mid (residual stream before a block, and between its attention "
        "and MLP), final (residual stream after the last norm, one for the whole model)",
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
    methods: tuple[str | MethodConfig, ...] = Field(
        (),
        title="Methods (none named: the default ones)",
        description="ways of steering to evaluate, by name or as a mapping of localizer, fitter, "
        "operator and so on; *: all that the data allow; empty: the default ones "
        "that the localizers make possible",
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
