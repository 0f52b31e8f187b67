"""Methods of the library that bake: from what their fitters find to weights, against the hooks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.experiment.candidates import SpecTemplate, candidate_selections
from real_tasks.experiment.methods.known import known_methods
from real_tasks.experiment.methods.method import Method
from real_tasks.export.targets import can, exported_as
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModuleScore
from tests.unit.export.test_export_operators import check_parity
from tests.unit.tiny_models import tiny_family, tiny_tokenizer

METHODS = {
    name: method for name, method in known_methods(ExperimentConfig()).items() if method.fitter
}
BAKED = {
    (method.kind, method.fitter.name, method.operator.name, method.where): name
    for name, method in METHODS.items()
    if method.fitter
    and exported_as(method).startswith("checkpoint")
    and FITTERS[method.fitter.name].access != "gradients"
    and name != "joint_pca"  # whose own tests do
}
"""One of those that are fitted and done alike."""
PARAMS: dict[str, dict[str, Any]] = {
    "one_vs_rest": {"class_name": "a"},
    "purified": {"class_name": "a"},
    "ci_norms": {"strengths": {"a": 2, "b": -1}},
    "prompt_difference": {"condition": "a"},
    "anonact": {"condition": "a"},
    "steer2edit": {"rho": 0.1},
    "steer2edit_neurons": {"rho": 0.1},
}
N = 24


def spec_of(name: str, loaded: LoadedModel) -> SteeringSpec:
    """The spec of a method at a strength of 1.5, fitted to random activations."""
    method = METHODS[name]
    assert method.fitter
    params = method.fitter.params | PARAMS.get(name, {})
    top_k = (2,) if method.localizer else ()
    fitter = PlugIn(name=method.fitter.name, params=params)
    method = method.model_copy(update={"fitter": fitter, "top_k": top_k})
    modules = loaded.shape.modules(method.kind)
    scores = [ModuleScore(module, 0.6 + 0.1 * (n % 3)) for n, module in enumerate(modules)]
    tensors = tensors_of(method, loaded)
    made = SpecTemplate(method, "m", "d", "w", loaded.shape, tensors, {})
    (selected,) = candidate_selections(method, scores if top_k else None, loaded.shape).values()
    return made.spec(selected, 1.5)


def tensors_of(method: Method, loaded: LoadedModel) -> dict[str, Tensor]:
    assert method.fitter
    made, shape = FITTERS.made(method.fitter.name, method.fitter.params), loaded.shape
    modules = shape.modules(method.kind)
    draw = torch.Generator().manual_seed(1)
    places = list(range(N))
    named: dict[str, Any] = {"pairs": tuple(place ^ 1 for place in places)}
    for aspect, single in (("classes", "class"), ("conditions", "condition")):
        named |= {aspect: tuple(n // 2 % 3 for n in places), f"{single}_names": ("a", "b", "c")}
    data = FitterInput(
        modules,
        0.5 + torch.randn(len(modules), N, shape.width(modules[0]), generator=draw),
        torch.tensor(places) % 2,
        torch.tensor(places) // 6,
        model=ModelHandle(loaded, 512),
        beside=torch.randn(1, N, shape.d_model, generator=draw),
        **named,
    )
    layers = sorted({module.layer for module in modules})
    parts = [[n for n, m in enumerate(modules) if m.layer == layer] for layer in layers]
    if made.all_layers:
        parts = [list(range(len(modules)))]
    found = []
    for part in parts:
        own = replace(data, modules=tuple(modules[n] for n in part), values=data.values[part])
        found.append(made.fit(own, 0))
    return {
        name: torch.cat([one[name] for one in found]).unflatten(0, (len(layers), -1))
        for name in made.gives
    }


@pytest.mark.parametrize("name", BAKED.values())
def test_a_method_that_bakes_gives_the_weights_that_do_what_its_hooks_do(
    name: str, tmp_path: Path
) -> None:
    loaded = prepare(tiny_family("llama", seed=4), tiny_tokenizer())
    spec = spec_of(name, loaded)
    assert can(spec, "bake", "llama").verdict == "exactly"
    edits = tuple(replace(edit, weights=spec.alpha * edit.weights) for edit in spec.edits)
    made = check_parity(loaded.model, edits, tmp_path / "made")
    assert made.weights or made.biases


def test_modules_of_which_no_dimension_is_scaled_are_in_no_edit() -> None:
    loaded = prepare(tiny_family("llama", seed=4), tiny_tokenizer())
    (edit,) = spec_of("austeer", loaded).edits
    gains = edit.tensors["gains"]
    assert int((gains != 0).sum()) == 10 and bool(gains.any(dim=1).all())
    assert len(edit.modules) == len(gains) < len(loaded.shape.modules("head"))


@pytest.mark.parametrize("name", ["anonact", "raptor"])
def test_what_steers_some_positions_alone_is_refused_with_the_way_out(name: str) -> None:
    loaded = prepare(tiny_family("llama", seed=4), tiny_tokenizer())
    support = can(spec_of(name, loaded), "bake", "llama")
    assert support.verdict == "refused"
    assert "export the steering spec instead" in support.reason
