"""Control vectors of llama.cpp: what is added to the output of blocks, in a GGUF file.

A tensor ``direction.N`` of width d_model is added to the output of block N, counted from 0; the
first block has none (llama.cpp, ``llama_adapter_cvec``). The library gguf writes the file.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fits import layer_displacement
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape

ARCHITECTURE = "controlvector"
_WAY_OUT = (
    "export the steering spec (--format spec), or a checkpoint with the steering baked in, which "
    "can be converted to GGUF"
)


def check_control_vector(intervention: Intervention) -> None:
    """Check that constants behind blocks do what an intervention does.

    Raises:
        UserInputError: they do not; says why, and the way out.
    """
    for edit in intervention.edits:
        _check_edit(edit, intervention.strength)


def _check_edit(edit: Edit, strength: float) -> None:
    first = min(edit.layers) - (edit.kind == "residual_in")
    if edit.scope != "all":
        why = f"token scope {str(edit.scope)!r} steers some positions only"
    elif edit.gate is not None:
        why = "a gate opens and closes the edit"
    elif edit.displacement(strength) is None:
        why = f"{edit.operator.formula} depends on the activations"
    elif edit.kind not in ("layer", "residual_in"):
        why = f"the edit is within a block ({edit.kind}), whose further parts see it"
        why += " (heads: --approximate adds it behind the block)" if edit.kind == "head" else ""
    elif first < 1:
        why = "the output of the first block, or its input, is edited, for which it has no place"
    else:
        return
    raise UserInputError(
        "a control vector adds a constant to the output of blocks, everywhere, and "
        f"{why}; {_WAY_OUT}"
    )


def control_vectors(
    intervention: Intervention, shape: ModelShape
) -> dict[int, Float[Tensor, "d_model"]]:
    """Return by block, from 0, what is added to its output; see `check_control_vector`."""
    check_control_vector(intervention)
    return summed_vectors(intervention.edits, intervention.strength, shape)


def summed_vectors(
    edits: Iterable[Edit], strength: float, shape: ModelShape
) -> dict[int, Float[Tensor, "width"]]:
    """Return by block, from 0, what edits of one part add there together.

    What is added to the input of a block is added to the output of the one before.
    """
    found: dict[int, Tensor] = {}
    for edit in edits:
        for layer in edit.layers:
            block = layer - (edit.kind == "residual_in")
            vector = layer_displacement(edit.at(layer), strength, shape)
            found[block] = found[block] + vector if block in found else vector
    return found


def save_control_vector(
    intervention: Intervention, shape: ModelShape, model_type: str, path: Path
) -> None:
    """Write the file that llama.cpp takes as ``--control-vector``, at a scale of 1.

    Raises:
        UserInputError: see `check_control_vector`.
    """
    write_vectors(control_vectors(intervention, shape), shape, model_type, path)


def write_vectors(
    vectors: Mapping[int, Float[Tensor, "width"]], shape: ModelShape, model_type: str, path: Path
) -> None:
    """Write a vector for each of some blocks into a GGUF file."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", model_type)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", shape.n_layers)
    for block in sorted(vectors):
        writer.add_tensor(f"direction.{block}", vectors[block].float().cpu().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
