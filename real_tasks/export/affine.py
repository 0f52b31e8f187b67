"""Which edits the weights and biases of an architecture can do, told before any is loaded."""

from real_tasks.experiment.methods.method import Method
from real_tasks.export.routes import OTHER_ROUTE, WRITTEN, check_constants, route_of
from real_tasks.models.families import FAMILIES
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.operators import Operator
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleKind


def check_baking(intervention: Intervention, model_type: str) -> None:
    """Check that weights and biases of an architecture can do what an intervention does, exactly.

    Raises:
        UserInputError: they cannot; the message says why, and the way out.
    """
    for edit in intervention.edits:
        check_rule(edit.operator, edit)
        constant = edit.displacement(intervention.strength) is not None
        for kind in written_kinds(edit):
            check_place(edit.operator.formula, kind, model_type, constant)
            if adds_constant(edit, intervention.strength):
                check_constants(model_type, kind)


def written_kinds(edit: Edit) -> list[ModuleKind]:
    """Return the kinds that the edit is of where it is written: input is the output before."""
    if edit.kind != "residual_in":
        return [edit.kind]
    kinds: list[ModuleKind] = ["residual_in"] if 0 in edit.layers else []
    return kinds + ["layer"] * (edit.layers[-1] > 0)


def check_rule(operator: Operator, edit: Edit | Method) -> None:
    """Check that an edit is the same affine map at every position of every text.

    Raises:
        UserInputError: it is not, with the reason and a way out.
    """
    formula = operator.formula
    if edit.scope != "all":
        raise UserInputError(
            f"token scope {str(edit.scope)!r} steers some positions only, weights and biases of a "
            "checkpoint steer them all; please " + OTHER_ROUTE
        )
    if edit.gate is not None:
        why = f"a gate opens and closes the edit ({formula}), and weights are always there"
    elif edit.keep_norm:
        why = "keep_norm brings activations back to their lengths, which no weights do"
    elif not operator.affine:
        why = f"{formula} is not affine in x, so that no weights do it"
    else:
        return
    raise UserInputError(f"{why}; please {OTHER_ROUTE}")


def check_place(formula: str, kind: ModuleKind, model_type: str, constant: bool) -> None:
    """Check that what an architecture has at a place is what one projection reads or puts out.

    ``constant`` says whether all that is done there is adding a constant.

    Raises:
        UserInputError: it is not, with the reason and a way out.
    """
    if model_type not in FAMILIES:
        raise UserInputError(
            f"the architecture {model_type!r} is unknown; known: {', '.join(sorted(FAMILIES))}"
        )
    projection, side = WRITTEN[kind]
    family, route = FAMILIES[model_type], route_of(model_type)
    if side == "behind" and not constant:
        writers = family.down_proj is not None and route.adds
        way_out = (
            " To keep a direction out of it (project_out), keep it out of all that writes to it: "
            "edit residual_in of layer 0, and attention and mlp of every layer (where: writers)."
        )
        raise UserInputError(
            f"{formula} changes the residual stream itself (kind {kind!r}), which no single "
            f"projection writes; please {OTHER_ROUTE}.{way_out if writers else ''}"
        )
    if projection == "down_proj" and family.down_proj is None and not constant:
        raise UserInputError(
            f"{formula} at {kind!r}: the feed-forward of {model_type!r} shares the work out to "
            f"experts, so that no single projection writes it; please {OTHER_ROUTE}"
        )
    if projection == "embedding" and not route.only_tokens:
        raise UserInputError(
            f"the input of layer 0 of {model_type!r} is not the embedding of tokens alone (images "
            f"have features there); please {OTHER_ROUTE}"
        )


def adds_constant(edit: Edit, strength: float) -> bool:
    """Whether an activation of zero is moved: a projection then needs a bias."""
    if edit.displacement(strength) is not None:
        return True
    zero = edit.weights.new_zeros(1, 1, len(edit.modules), width_of(edit))
    moved = edit.operator.apply(zero, edit.tensors, (strength * edit.weights)[None, None])
    return bool(moved.any())


def width_of(edit: Edit) -> int:
    """Return how wide each of an edit's modules is, as its tensors have it."""
    axes = {name: ["module", *said.split()] for name, said in edit.operator.needs.items()}
    widths = [edit.tensors[n].shape[said.index("d")] for n, said in axes.items() if "d" in said]
    return [*widths, 1][0]
