"""Steering for EasySteer, a fork of vLLM: vectors in GGUF files, and the JSON that applies them.

After its documentation (https://github.com/ZJU-REAL/EasySteer, read in November 2026): a tensor
``direction.N`` belongs to decoder layer N, counted from 0. ``direct`` adds it to the layer's
output, ``attention_add`` to the outputs of all query heads in front of the output projection. What
is added to tokens of the prompt and to generated ones is said apart.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from real_tasks.export.control_vector import summed_vectors, write_vectors
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.scopes import Scope
from real_tasks.vocabulary.types import ModelShape

STEERING = "steering.json"
_APPLY: dict[Scope, dict[str, Any]] = {
    "all": {"prompt": "all", "generation": "all"},
    "generated": {"generation": "all"},
    "last": {"prompt_positions": [-1], "generation": "all"},
}


def check_easysteer(intervention: Intervention) -> None:
    """Check that constants at heads and behind layers do what an intervention does.

    Raises:
        UserInputError: they do not; says why, and the way out.
    """
    for edit in intervention.edits:
        if edit.scope not in _APPLY:
            why = f"token scope {str(edit.scope)!r} is none of {', '.join(map(str, _APPLY))}"
        elif edit.gate is not None:
            why = "a gate opens and closes the edit"
        elif edit.displacement(intervention.strength) is None:
            why = f"{edit.operator.formula} depends on the activations"
        elif edit.kind not in ("head", "layer", "residual_in"):
            why = f"the edit is at {edit.kind!r}"
        elif edit.kind == "residual_in" and 0 in edit.layers:
            why = "the input of the first layer is edited"
        else:
            continue
        raise UserInputError(
            "EasySteer adds constants to the outputs of heads and of layers, and "
            f"{why}; export the steering spec (--format spec), and serve it with `real serve`"
        )


def save_easysteer(
    intervention: Intervention, shape: ModelShape, model_type: str, folder: Path
) -> tuple[str, ...]:
    """Write vectors and ``steering.json``, which `vllm serve` takes as ``--steering-config``.

    Returns:
        The algorithms that the server has to be started with.

    Raises:
        UserInputError: see `check_easysteer`.
    """
    check_easysteer(intervention)
    parts: dict[tuple[str, Scope], list[Edit]] = defaultdict(list)
    for edit in intervention.edits:
        algorithm = "attention_add" if edit.kind == "head" else "direct"
        parts[algorithm, edit.scope].append(edit)
    applied = []
    for (algorithm, scope), edits in parts.items():
        name = f"{algorithm}-{scope}.gguf"
        vectors = summed_vectors(edits, intervention.strength, shape)
        write_vectors(vectors, shape, model_type, folder / name)
        applied.append(
            {"source": name, "algorithm": algorithm, "scale": 1.0, "apply": _APPLY[scope]}
        )
    steering = {"vectors": applied, "conflict": "sequential"}
    (folder / STEERING).write_text(json.dumps(steering, indent=2), encoding="utf-8")
    return tuple(dict.fromkeys(algorithm for algorithm, _ in parts))
