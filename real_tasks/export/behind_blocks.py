"""What heads add, added behind their blocks: the nearest thing that a control vector can hold.

Within a block its feed-forward part sees what heads add; behind it that part does not, which is
what is lost. How much that is, is measured and said.
"""

from collections import defaultdict

import torch
from torch import Tensor

from real_tasks.export.affine import check_baking
from real_tasks.export.parity import Parity, continuation_log_probs
from real_tasks.export.recognition import Reading, compare
from real_tasks.export.rewriting import block_factor, rewritten
from real_tasks.export.routes import route_of
from real_tasks.models.families import family_of
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId


def check_behind_blocks(intervention: Intervention, model_type: str) -> None:
    """Check that an intervention adds constants at heads, to a residual stream without a norm.

    Raises:
        UserInputError: it does something else, or a norm stands between heads and stream.
    """
    check_baking(intervention, model_type)
    for edit in intervention.edits:
        if edit.kind != "head" or edit.displacement(intervention.strength) is None:
            raise UserInputError(
                "only what is added to heads is approximated behind their blocks; this is "
                f"{edit.operator.formula} at {edit.kind!r}"
            )
    if not route_of(model_type).adds:
        raise UserInputError(
            f"in {model_type!r} a norm stands between the heads and the residual stream, so that "
            "what they add is no constant behind it"
        )


@torch.no_grad()
def behind_blocks(loaded: LoadedModel, intervention: Intervention) -> Intervention:
    """Return an intervention that adds behind blocks what another one adds to their heads.

    Behind the first block, for which a control vector has no place, it is added one block later.
    `check_behind_blocks` lets the intervention pass; the model is not steered at present.
    """
    family, model = family_of(loaded.model.config), loaded.model
    biases = rewritten(model, intervention, torch.float32).biases
    added: dict[int, Tensor] = defaultdict(lambda: torch.zeros(loaded.shape.d_model))
    for layer in sorted({layer for edit in intervention.edits for layer in edit.layers}):
        path = f"{family.layers}.{layer}.{family.o_proj}"
        own = getattr(model.get_submodule(path), "bias", None)
        gone = 0.0 if own is None else own.float().cpu()
        added[max(layer, 1)] += (biases[f"{path}.bias"] - gone) * block_factor(model)
    return Intervention(
        (
            Edit(
                tuple(ModuleId("layer", layer) for layer in added),
                {"direction": torch.stack(list(added.values())), "scale": torch.ones(len(added))},
                torch.ones(len(added)),
            ),
        ),
        1.0,
    )


def loss_in_words(loaded: LoadedModel, approximation: Intervention, parity: Parity) -> str:
    """Say how far an approximation is from what the parity file expects."""
    with applied(loaded, approximation):
        readings = [
            [
                Reading(value)
                for value in continuation_log_probs(
                    loaded.model, case.prompt_ids, case.continuation_ids
                )
            ]
            for case in parity.cases
        ]
    found = compare(parity, readings)
    return (
        "An approximation: what heads add is added behind their blocks (behind the second, where "
        "they are in the first), whose feed-forward parts do not see it. Log-probabilities differ "
        f"from the hooked model's by up to {found.from_steered:.2g} nats, where steering changes "
        f"them by up to {found.steering:.2g}; {found.share:.0%} of the steering is there."
    )
