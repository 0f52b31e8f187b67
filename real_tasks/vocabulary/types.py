"""The values that flow through the method, frozen: questions, modules, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # who asks for help waits for no torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

ModuleKind = Literal[
    "head", "attention", "mlp", "neuron", "residual_in", "residual_mid", "layer", "final"
]
"""The parts of the network that are read and steered:

- ``head``: a head's slice of the input of the attention's output projection, ``o_proj``.
- ``attention``: the output of ``o_proj``.
- ``mlp``: the output of the feed-forward block.
- ``neuron``: one number of the input of the feed-forward's last projection, ``down_proj``.
- ``residual_in``: the residual stream before the block.
- ``residual_mid``: the residual stream after the attention, before the feed-forward.
- ``layer``: the residual stream after the block.
- ``final``: the residual stream after the last norm; one for the whole model, in layer 0.
"""
Reading = Literal["last", "prompt_end", "answer_mean", "prompt_mean", "text_mean", "marked"]
"""Which tokens of a text, prompt and answer, activations are read at; of several it is their mean:

- ``last``: the last of all.
- ``prompt_end``: the last of the prompt.
- ``answer_mean``: those of the answer.
- ``prompt_mean``: those of the prompt, but for the first, which in many models is a hundred times
  as large as others, whatever it is.
- ``text_mean``: all, but for that one.
- ``marked``: those of marked places.
"""
Aspect = Literal["pairs", "classes", "conditions", "marks"]
"""What samples may have besides prompt, answer, label and question."""
TokenScope = Literal["all", "generated", "last"]
Verdict = Literal["true", "false", "neither"]
VERDICTS: tuple[Verdict, ...] = ("true", "false", "neither")

PARTED: tuple[ModuleKind, ...] = ("head", "neuron")
"""The kinds of which a layer has several modules; one of the others is all of its part."""
WHOLE_LAYER = -1
"""`ModuleId.head` of a module that is all of its part in a layer."""


@dataclass(frozen=True)
class Answer:
    """One answer to a question: aligned (label 1) or violating (label 0).

    Attributes:
        class_name: one of several classes that cross the labels; empty: of none.
        pair: a name that the answers have with which it pairs up; see `BehaviourData.paired`.
        marks: places in the text: first character, from 0, and the one after the last.
    """

    answer_id: str
    text: str
    label: int
    is_best: bool = False
    class_name: str = ""
    pair: str = ""
    marks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Question:
    """A question with its aligned and violating answers; exactly one aligned answer is the best.

    Attributes:
        context: a passage that the question is about, where the behaviour's template shows one.
        alternates: the same question put otherwise (its options in the other order, say), with
            answers of their own; it is in the same fold, and a measurement is the mean over all.
        condition: that under which it is asked (with a system prompt in its context, say, or
            without); empty: none.
    """

    question_id: str
    text: str
    category: str
    answers: tuple[Answer, ...]
    context: str = ""
    alternates: tuple[Question, ...] = ()
    condition: str = ""

    @property
    def presentations(self) -> tuple[Question, ...]:
        """The question itself and its alternates."""
        return (self, *self.alternates)


@dataclass(frozen=True)
class BehaviourData:
    """The data of a behaviour.

    Texts are made of templates with ``{question}``, ``{context}`` where there is one, and, last,
    ``{answer}``; see `real_tasks.reading.prompts`.

    Attributes:
        name: the behaviour's registered name, or that of the folder or file of its questions.
        questions: in the order that the folds follow.
        neutral_texts: texts without the behaviour, on which side effects are measured; empty where
            the behaviour has none of its own.
        template: of the texts whose activations are read.
        prompt: of the prompts of the evaluation; ``template`` where it is None.
        preamble: what stands before every prompt of the evaluation (an instruction, examples).
        chat_prompt: what the user says where a model's chat template is used; without an answer.
        stop: strings that end a generated answer; what follows the first of them is cut.
        measures: registered names of what is measured unless the experiment says otherwise.
        outcomes: in measurements, the names of the verdicts true, false and neither.
        source: where the questions come from: file or data set, version, how many were left out.
        paired: whether the answers of a question pair up in their order: the i-th aligned with the
            i-th violating, where there are as many of each. Answers with a name of a pair do so
            anyway among all that have it.
    """

    name: str
    questions: tuple[Question, ...]
    neutral_texts: tuple[str, ...] = ()
    template: str = "Q: {question} A: {answer}"
    prompt: str | None = None
    preamble: str = ""
    chat_prompt: str = "{question}"
    stop: tuple[str, ...] = ("Q:",)
    measures: tuple[str, ...] = ("multiple_choice", "generation")
    outcomes: tuple[str, str, str] = ("true", "false", "neither")
    source: Mapping[str, str] = field(default_factory=dict)
    paired: bool = True

    def context(self, question: Question) -> str:
        """Return the plain text that is read up to, and without, the blank before the answer."""
        return filled(self.template, question, answer="").rstrip()

    def full_text(self, question: Question, answer: Answer) -> str:
        """Return the plain text that is read, with its answer; it starts with the context."""
        return filled(self.template, question, answer=answer.text)

    def prompt_context(self, question: Question) -> str:
        """Return the evaluation's plain prompt up to, and without, the blank before the answer."""
        prompt = filled(self.prompt or self.template, question, answer="")
        return self.preamble + prompt.rstrip()

    def prompt_with_answer(self, question: Question, answer: Answer) -> str:
        """Return the evaluation's plain prompt with an answer; it starts with its context."""
        return self.preamble + filled(self.prompt or self.template, question, answer=answer.text)


def filled(template: str, question: Question, **further: str) -> str:
    """Return a template with its fields filled; where a context is missing, without its blanks.

    Only of questions that are asked under conditions some may have a context, and some none.
    """
    text = template.format(question=question.text, context=question.context, **further)
    return text if question.context or not template.startswith("{context}") else text.lstrip()


@dataclass(frozen=True)
class FoldSplit:
    """Indices of questions of one cross-validation fold; the three are disjoint."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, order=True)
class ModuleId:
    """A place in the network that can be scored and steered; orders by (kind, layer, head).

    Attributes:
        kind: the part.
        layer: from 0; 0 for ``final``.
        head: the unit: a head, a neuron, or a single dimension of any other part; `WHOLE_LAYER`
            where the module is all of the part.
    """

    kind: ModuleKind
    layer: int
    head: int = WHOLE_LAYER

    @property
    def label(self) -> str:
        """The name that people read."""
        if self.kind in PARTED and self.head != WHOLE_LAYER:
            return f"layer {self.layer}, {self.kind} {self.head}"
        unit = "" if self.head == WHOLE_LAYER else f", dimension {self.head}"
        return _NAMES[self.kind][0].format(self.layer) + unit

    @property
    def short_name(self) -> str:
        """The name where there is little room: L3H5, L3N17, L3, MLP3, MID3, FINAL; MLP3D17."""
        if self.kind in PARTED and self.head != WHOLE_LAYER:
            return f"L{self.layer}{self.kind[0].upper()}{self.head}"
        unit = "" if self.head == WHOLE_LAYER else f"D{self.head}"
        return _NAMES[self.kind][1].format(self.layer) + unit


_NAMES: dict[ModuleKind, tuple[str, str]] = {
    "head": ("heads of layer {}", "HEADS{}"),
    "attention": ("attention of layer {}", "ATT{}"),
    "mlp": ("MLP of layer {}", "MLP{}"),
    "neuron": ("neurons of layer {}", "NEURONS{}"),
    "residual_in": ("input of layer {}", "IN{}"),
    "residual_mid": ("middle of layer {}", "MID{}"),
    "layer": ("layer {}", "L{}"),
    "final": ("output of the last norm", "FINAL"),
}
"""By kind, what a whole part is called, and where there is little room."""


@dataclass(frozen=True)
class LocalizerInput:
    """What a localizer sees of one shard of modules: never a test question.

    Attributes:
        modules: the modules of the shard.
        values: activations at the tokens that the localizer reads (the last one, mostly), float32,
            on the device to compute on.
        labels: 1 aligned, 0 violating.
        questions: index of each sample's question; questions that a pair joins have the same.
        train: samples of training questions; the others belong to validation questions.
        effect: for localizers that ask for it (`uses_effects`): what steering one module alone, by
            a displacement of shape ``[d]``, does to the validation questions, in nats of log-odds
            of the aligned answers. For those that ask for demonstrations (`few_shot`): what putting
            a vector in the module's place does, at the last token of prompts that come after
            training questions with shuffled answers.
        shown: likewise: modules' activations, ``[module, prompt, d]``, at the last token of prompts
            that come after training questions with their best answers.
        weight: for localizers that ask for it (`uses_weights`): by what a module writes to the
            residual stream, ``[d_model, d]``, a norm between up to what that divides by.
        pairs: each sample's partner of the other label, by its place among the samples, or -1;
            both of a pair are samples of training questions, or neither is.
        beside: for localizers that ask for it (`Localizer.beside`): what another part of the same
            layer has, read at the same tokens.
    """

    modules: tuple[ModuleId, ...]
    values: Float[Tensor, "module sample d"]
    labels: Int[Tensor, "sample"]
    questions: Int[Tensor, "sample"]
    train: Bool[Tensor, "sample"]
    effect: Callable[[ModuleId, Float[Tensor, "d"]], float] | None = None
    shown: Callable[[tuple[ModuleId, ...]], Float[Tensor, "module prompt d"]] | None = None
    weight: Callable[[ModuleId], Float[Tensor, "d_model d"]] | None = None
    pairs: tuple[int, ...] = ()
    beside: Float[Tensor, "sample d_model"] | None = None


@dataclass(frozen=True)
class ModuleScore:
    """How well a module tells aligned from violating answers.

    `score` is the number the localizer ranks by. What a localizer does not have is None.
    `perplexity` is in codes, `reconstruction_loss` the mean squared error of standardised inputs.
    """

    module: ModuleId
    score: float
    roc_auc: float | None = None
    roc_auc_low: float | None = None
    roc_auc_high: float | None = None
    aupr: float | None = None
    f1: float | None = None
    perplexity: float | None = None
    reconstruction_loss: float | None = None
    collapsed: bool | None = None


@dataclass(frozen=True)
class LocalizerResult:
    """Scores of a shard in the order of its modules, and the evidence that pictures are drawn from.

    `evidence` maps a name to a tensor; see each localizer for its names and shapes.
    """

    protocol: str
    scores: tuple[ModuleScore, ...]
    evidence: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class SelectedModule:
    """A module chosen to be steered: its 1-based rank, strength (w), and score if it has one."""

    module: ModuleId
    rank: int
    score: float | None
    strength: float


def layer_modules(kind: ModuleKind, layer: int, count: int) -> tuple[ModuleId, ...]:
    """Return a layer's modules of a kind: its ``count`` heads or neurons, or the whole part."""
    if kind in PARTED:
        return tuple(ModuleId(kind, layer, unit) for unit in range(count))
    return (ModuleId(kind, layer),)


@dataclass(frozen=True)
class ModelShape:
    """How many modules a model has, and how wide they are.

    Attributes:
        n_heads: attention (query) heads, also under grouped-query attention.
        head_dim: width of a head.
        d_model: width of the residual stream.
        d_mlp: neurons of a layer's feed-forward; 0 where it has none (experts), or where they are
            not known. Two shapes that differ in nothing else are equal.
    """

    n_layers: int
    n_heads: int
    head_dim: int
    d_model: int
    d_mlp: int = field(default=0, compare=False)

    def n_layers_of(self, kind: ModuleKind) -> int:
        """Return in how many layers a part is; there is one ``final``."""
        return 1 if kind == "final" else self.n_layers

    def modules_per_layer(self, kind: ModuleKind) -> int:
        """Return how many modules of a kind a layer has."""
        return {"head": self.n_heads, "neuron": self.d_mlp}.get(kind, 1)

    def part_width(self, kind: ModuleKind) -> int:
        """Return how many numbers the whole part of a layer has."""
        return {"head": self.n_heads * self.head_dim, "neuron": self.d_mlp}.get(kind, self.d_model)

    def width(self, of: ModuleKind | ModuleId) -> int:
        """Return the width of a module's activation, or of each of the `modules` of a kind."""
        if isinstance(of, ModuleId):
            span = self.span(of)
            return int(span.stop - span.start)
        return {"head": self.head_dim, "neuron": 1}.get(of, self.d_model)

    def span(self, module: ModuleId) -> slice:
        """Return which of the numbers of its part, in its layer, are a module's."""
        if module.head == WHOLE_LAYER:
            return slice(0, self.part_width(module.kind))
        width = self.head_dim if module.kind == "head" else 1
        return slice(module.head * width, (module.head + 1) * width)

    def has(self, module: ModuleId) -> bool:
        """Say whether a model of this shape has a module."""
        return (
            0 <= module.layer < self.n_layers_of(module.kind)
            and module.head >= WHOLE_LAYER
            and self.span(module).stop <= self.part_width(module.kind)
        )

    def layer_modules(self, kind: ModuleKind, layer: int) -> tuple[ModuleId, ...]:
        """Return a layer's modules of a kind."""
        return layer_modules(kind, layer, self.modules_per_layer(kind))

    def modules(self, kind: ModuleKind) -> tuple[ModuleId, ...]:
        """Return all modules of a kind, first layer first."""
        layers = range(self.n_layers_of(kind))
        return tuple(m for layer in layers for m in self.layer_modules(kind, layer))
