"""The values that flow through the method, frozen: questions, modules, scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

ModuleKind = Literal["head", "layer", "mlp"]
TokenScope = Literal["all", "generated", "last"]
Verdict = Literal["true", "false", "neither"]

WHOLE_LAYER = -1
"""`ModuleId.head` of a module that is not a head."""


@dataclass(frozen=True)
class Answer:
    """One answer to a question: aligned (label 1) or violating (label 0)."""

    answer_id: str
    text: str
    label: int
    is_best: bool = False


@dataclass(frozen=True)
class Question:
    """A question with its aligned and violating answers; exactly one aligned answer is the best."""

    question_id: str
    text: str
    category: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class BehaviourData:
    """The data of a behaviour.

    Attributes:
        name: the behaviour's registered name.
        questions: in the order that the folds follow.
        neutral_texts: texts without the behaviour, on which side effects are measured.
        template: the prompt with ``{question}`` and, last, ``{answer}``.
        stop: strings that end a generated answer; what follows the first of them is cut.
    """

    name: str
    questions: tuple[Question, ...]
    neutral_texts: tuple[str, ...]
    template: str = "Q: {question} A: {answer}"
    stop: tuple[str, ...] = ("Q:",)

    def context(self, question: Question) -> str:
        """Return the prompt up to, and without, the blank before the answer."""
        return self.template.format(question=question.text, answer="").rstrip()

    def full_text(self, question: Question, answer: Answer) -> str:
        """Return the prompt with the answer; it starts with ``context(question)``."""
        return self.template.format(question=question.text, answer=answer.text)


@dataclass(frozen=True)
class FoldSplit:
    """Indices of questions of one cross-validation fold; the three are disjoint."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, order=True)
class ModuleId:
    """A place in the network that can be scored and steered; orders by (kind, layer, head)."""

    kind: ModuleKind
    layer: int
    head: int = WHOLE_LAYER


@dataclass(frozen=True)
class LocalizerInput:
    """What a localizer sees of one shard of modules: never a test question.

    Attributes:
        modules: the modules of the shard.
        values: activations at the last token, float32, on the device to compute on.
        labels: 1 aligned, 0 violating.
        questions: index of each sample's question.
        train: samples of training questions; the others belong to validation questions.
    """

    modules: tuple[ModuleId, ...]
    values: Float[Tensor, "module sample d"]
    labels: Int[Tensor, "sample"]
    questions: Int[Tensor, "sample"]
    train: Bool[Tensor, "sample"]


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


@dataclass(frozen=True)
class ModelShape:
    """How many modules a model has; `n_heads` are attention (query) heads, also under GQA."""

    n_layers: int
    n_heads: int
    head_dim: int
