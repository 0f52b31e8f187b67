"""What a steered model can be taken away as, told before any model is loaded."""

from dataclasses import dataclass
from typing import Literal, get_args

from real_tasks.experiment.candidates import WRITERS
from real_tasks.experiment.methods.method import Method
from real_tasks.export.affine import (
    adds_constant,
    check_baking,
    check_place,
    check_rule,
    written_kinds,
)
from real_tasks.export.control_vector import check_control_vector
from real_tasks.export.easysteer import check_easysteer
from real_tasks.export.lora import check_lora
from real_tasks.export.routes import route_of
from real_tasks.models.families import FAMILIES
from real_tasks.steering.edits import Intervention
from real_tasks.steering.operators import OPERATORS, Operator
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import WHOLE_LAYER, ModuleKind

Target = Literal["hooks", "bake", "gguf", "control vector", "easysteer", "lofit", "serve", "lora"]
TARGETS: tuple[Target, ...] = get_args(Target)
Verdict = Literal["exactly", "with a difference", "refused"]

KEEP_BIASES = frozenset({"gpt2", "gpt_neox", "granite", "llama", "phi", "starcoder2"})
"""Architectures whose loaders in llama.cpp take a bias of both projections (read in 2026)."""
KEEP_HEADS = frozenset({"granite", "llama", "mistral", "phi", "qwen3", "starcoder2"})
"""Those whose loaders take a language-model head that is not the embedding."""


@dataclass(frozen=True)
class Support:
    """Whether a target does what the hooks do.

    Attributes:
        reason: why, for people; where it is refused, with a way out.
    """

    verdict: Verdict
    reason: str

    @property
    def sentence(self) -> str:
        """What people read."""
        return f"{self.verdict}: {self.reason}"


def can(what: SteeringSpec | Intervention, target: Target, model_type: str) -> Support:
    """Return whether steering can be put into a target, as far as the architecture tells.

    Args:
        what: the steering.
        target: ``hooks``, in this program; ``bake``, an ordinary checkpoint; ``gguf``, that
            checkpoint converted for llama.cpp; ``control vector``, its file for what is added to
            blocks; ``easysteer``, its vectors; ``lofit``, a list of heads; ``serve``, a server of
            checkpoints; ``lora``, an adapter of peft.
        model_type: the architecture, as transformers calls it.
    """
    intervention = what.intervention() if isinstance(what, SteeringSpec) else what
    check = {
        "hooks": _hooks,
        "bake": _bake,
        "gguf": _gguf,
        "control vector": _control_vector,
        "easysteer": _easysteer,
        "lofit": _lofit,
        "serve": _serve,
        "lora": _lora,
    }[target]
    try:
        return check(intervention, model_type)
    except UserInputError as error:
        return Support("refused", str(error))


def exported_as(method: Method) -> str:
    """Say as what a spec of a method can be taken away, where the architecture lets it (Llama's).

    Its tensors are not known, so that a constant which an operator may add counts for nothing.
    """
    operator = OPERATORS.made(method.operator.name, method.operator.params)
    constant = type(operator).displacement is not Operator.displacement
    try:
        check_rule(operator, method)
        for kind in WRITERS if method.where == "writers" else (method.kind,):
            check_place(operator.formula, kind, "llama", constant)
    except UserInputError:
        return "spec"
    return "checkpoint (baked), spec"


def _hooks(intervention: Intervention, model_type: str) -> Support:
    lacking = [edit.kind for edit in intervention.edits if not _has(model_type, edit.kind)]
    if lacking:
        return Support("refused", f"the architecture {model_type!r} has no {lacking[0]!r} to hook")
    return Support("exactly", "hooks do every edit at its own place")


def _has(model_type: str, kind: ModuleKind) -> bool:
    family = FAMILIES.get(model_type)
    lacks = {"neuron": "down_proj", "residual_mid": "mid"}.get(kind, "layers")
    return family is not None and getattr(family, lacks) is not None


def _bake(intervention: Intervention, model_type: str) -> Support:
    check_baking(intervention, model_type)
    return Support("exactly", "weights and biases of an ordinary checkpoint do it, up to rounding")


def _gguf(intervention: Intervention, model_type: str) -> Support:
    check_baking(intervention, model_type)
    kinds = {kind for edit in intervention.edits for kind in written_kinds(edit)}
    if kinds & {"residual_in", "final"} and model_type not in KEEP_HEADS:
        return Support(
            "refused",
            f"llama.cpp is not known to keep a head of {model_type!r} that is not its embedding, "
            "and one of the two is changed; serve the baked checkpoint by another server",
        )
    biased = any(
        adds_constant(edit, intervention.strength) and set(written_kinds(edit)) != {"residual_in"}
        for edit in intervention.edits
    )
    if not biased or model_type in KEEP_BIASES:
        return Support("exactly", "the baked checkpoint, converted; quantising it rounds it")
    if route_of(model_type).as_llama:
        return Support(
            "with a difference",
            "the baked checkpoint is declared as a Llama, whose biases llama.cpp keeps, unless a "
            "sliding window can cut; check what is served with `real export --check URL`",
        )
    return Support(
        "refused",
        f"llama.cpp is not known to keep the bias of {model_type!r} that would steer; it does for "
        f"{', '.join(sorted(KEEP_BIASES))}",
    )


def _control_vector(intervention: Intervention, model_type: str) -> Support:  # noqa: ARG001
    check_control_vector(intervention)
    return Support("exactly", "constants that llama.cpp adds to the output of blocks")


def _easysteer(intervention: Intervention, model_type: str) -> Support:  # noqa: ARG001
    check_easysteer(intervention)
    return Support("exactly", "constants that EasySteer adds to the outputs of heads or layers")


def _lofit(intervention: Intervention, model_type: str) -> Support:  # noqa: ARG001
    modules = [module for edit in intervention.edits for module in edit.modules]
    if any(module.kind != "head" or module.head == WHOLE_LAYER for module in modules):
        return Support("refused", "LoFiT's list is one of attention heads")
    return Support("with a difference", "a list of heads, without what is done to them")


def _lora(intervention: Intervention, model_type: str) -> Support:
    check_lora(intervention, model_type)
    return Support(
        "exactly",
        "changes of weights of a low rank; refused where a bias that the model has would change",
    )


def _serve(intervention: Intervention, model_type: str) -> Support:
    check_baking(intervention, model_type)
    return Support(
        "exactly",
        "by any server of the baked checkpoint that keeps its biases; check it with `real export "
        "--check URL`",
    )
