"""Forward passes of a steered model that start at the first layer that is steered."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from real_tasks.models.kept_states import resumed
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import sites
from real_tasks.models.rope import forget_longer_texts
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied


def steered_states(
    loaded: LoadedModel,
    intervention: Intervention | None,
    batch: str,
    inputs: dict[str, Any],
    prompt_lengths: Int[Tensor, "row"],
    gated_lengths: Int[Tensor, "row"] | None = None,
) -> Float[Tensor, "row position d_model"]:
    """Return the decoder's output for a batch under an intervention.

    Layers before the first that is steered, or read by a gate, are taken from an earlier pass over
    the same batch (see `real_tasks.models.kept_states.batch_key`), whatever its intervention; the
    numbers are those of a full pass to the bit. A model that is hooked by others already, or spread
    over devices, takes the full pass. ``inputs`` are the decoder's arguments, without a cache that
    has to grow; for both lengths see `applied`.
    """
    layers = sites(loaded.model, "layer")
    first = len(layers) if intervention is None else intervention.first_layer(len(layers))
    if _is_others(loaded.model):
        first = 0
    with (
        resumed(loaded.kept, layers, f"{batch} {_state_of_weights(loaded.model)}", first),
        applied(loaded, intervention, prompt_lengths, gated_lengths),
    ):
        return loaded.hidden_states(**inputs)


def _state_of_weights(model: nn.Module) -> int:
    """Return what changes when somebody trains the model, or puts other weights in."""
    weights = model.parameters()
    return hash(tuple((w.data_ptr(), -1 if w.is_inference() else w._version) for w in weights))


def _is_others(model: nn.Module) -> bool:
    hooks = (
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )
    spread = bool(getattr(model, "hf_device_map", None))
    return spread or any(hook is not forget_longer_texts for hook in hooks)
