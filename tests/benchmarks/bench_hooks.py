"""What hooks cost: tokens a second of a steered model against the bare one, by operator and gate.

The model has the shape of the embedded one, eight times as wide; hooking is included.
"""

from collections.abc import Iterator
from functools import partial

import torch

from real_tasks.models.embedded.demo import D_MODEL, N_LAYERS
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.gates import GATES, FittedGate
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.types import ModuleId
from tests.benchmarks.common import Options, Row, seconds, small_llama

WIDTH = 8 * D_MODEL
N_ROWS, N_TOKENS = 4, 64


def rows(options: Options) -> Iterator[Row]:
    loaded = small_llama(options.device, WIDTH, N_LAYERS)
    n_rows = options.sized(N_ROWS, 1)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 200, (n_rows, N_TOKENS), generator=draw).to(loaded.device)

    @torch.inference_mode()
    def run(intervention: Intervention | None = None) -> None:
        with applied(loaded, intervention):
            loaded.hidden_states(input_ids=ids, use_cache=False)

    for name, intervention in interventions(loaded):
        timed = seconds(5 * options.rounds, run, partial(run, intervention))
        bare, steered = (n_rows * N_TOKENS / one for one in timed)
        yield Row(f"steered by {name}, tokens/s", steered, bare, "not steered", rate=True)


def tensors_of(name: str, n_modules: int, width: int, d_model: int) -> dict[str, torch.Tensor]:
    """Random tensors of an operator; its directions are orthonormal."""
    sizes = {"d": width, "d_model": d_model, "2": 2, "rank": 4}
    found = {}
    for tensor, axes in OPERATORS[name].needs.items():
        shape = [n_modules, *(sizes[axis] for axis in axes.split())]
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        if tensor == "plane":
            drawn = torch.linalg.qr(drawn.mT).Q.mT.contiguous()
        elif axes == "d":
            drawn = torch.nn.functional.normalize(drawn, dim=-1)
        found[tensor] = 0.1 * drawn if tensor in ("left", "right", "bias") else drawn
    return found


def interventions(loaded: LoadedModel) -> Iterator[tuple[str, Intervention]]:
    """What is measured, each with its name."""
    shape = loaded.shape
    heads, one = shape.modules("head"), (ModuleId("layer", 2),)
    every = shape.modules("layer")
    for name in OPERATORS:
        places = (("one layer", one), ("all layers", every), ("all heads", heads))
        for where, modules in places[2:] if OPERATORS[name].writes else places:
            tensors = tensors_of(name, len(modules), shape.width(modules[0]), shape.d_model)
            weights = torch.ones(len(modules))
            edit = Edit(modules, tensors, weights, OPERATORS.made(name, {}))
            yield f"{name}, {where}", Intervention((edit,), 0.5)
    for state, threshold in (("open", -1e9), ("closed", 1e9)):
        direction = torch.ones(shape.d_model) / shape.d_model**0.5
        gate = FittedGate(
            GATES.made("prompt_similarity", {"layer": 1}),
            {"direction": direction, "threshold": torch.tensor(threshold)},
        )
        edit = Edit(
            one, tensors_of("add", 1, shape.d_model, shape.d_model), torch.ones(1), gate=gate
        )
        yield f"add, one layer, gate {state}", Intervention((edit,), 0.5)
