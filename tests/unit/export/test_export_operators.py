"""Operators of every kind in baked checkpoints, against the same edits done by hooks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from real_tasks.export.bake import Baked, bake
from real_tasks.export.routes import route_of
from real_tasks.export.targets import TARGETS, can
from real_tasks.models.families import FAMILIES, check_kind, configured_shape
from real_tasks.models.loading import prepare
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.gates import FittedGate, Gate
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.steering.operators.mirror import Mirror
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleId, ModuleKind
from tests.unit.steering.test_operators import drawn_tensors
from tests.unit.tiny_models import TINY_FAMILIES, tiny_family, tiny_tokenizer

# Longer than the sliding windows of the tiny models.
IDS = torch.randint(4, 68, (2, 24), generator=torch.Generator().manual_seed(1))
AFFINE = ("add", "affine", "clamp", "project_out", "replace", "rotate", "scale")
CONSTANTS = ("add", "affine", "clamp", "replace")


def edit_of(name: str, shape: ModelShape, *modules: ModuleId, **other: Any) -> Edit:
    operator = OPERATORS.made(name, {})
    tensors = drawn_tensors(operator, len(modules), shape.width(modules[0]))
    if name == "affine":  # so small that activations stay as large as they are
        tensors = {n: 0.2 * t for n, t in tensors.items()}
    strength = 60.0 if name == "rotate" else 0.5
    return Edit(modules, tensors, torch.full((len(modules),), strength), operator, **other)


@torch.no_grad()
def logits_of(model: PreTrainedModel, intervention: Intervention | None = None) -> Tensor:
    with applied(model, intervention):
        found: Tensor = model(IDS).logits
    return found


def bake_tiny(model: PreTrainedModel, edits: tuple[Edit, ...], folder: Path) -> Baked:
    source = folder.with_name("source")
    tiny_tokenizer().save_pretrained(source)
    folder.mkdir(exist_ok=True)
    return bake(prepare(model, tiny_tokenizer()), Intervention(edits, 1.0), source, folder)


def check_parity(model: PreTrainedModel, edits: tuple[Edit, ...], folder: Path) -> Baked:
    """Bakes, loads by plain transformers and compares with the hooked model."""
    expected, plain = logits_of(model, Intervention(edits, 1.0)), logits_of(model)
    made = bake_tiny(model, edits, folder)
    back, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not [value for value in info.values() if value]
    torch.testing.assert_close(logits_of(back.eval()), expected, atol=1e-4, rtol=0)
    assert (expected - plain).abs().max() > 0.01
    torch.testing.assert_close(logits_of(model), plain, atol=0, rtol=0)  # and is itself untouched
    return made


def has(model: PreTrainedModel, kind: ModuleKind) -> bool:
    try:
        check_kind(model.config, kind)
    except UserInputError:
        return False
    return True


def sites_of(model: PreTrainedModel) -> list[ModuleId]:
    """Modules whose affine edits one projection can do: heads, neurons, dimensions and wholes."""
    found = [
        *(ModuleId("residual_in", 0), ModuleId("head", 1, 2), ModuleId("head", 1, 0)),
        *(ModuleId("attention", 1), ModuleId("attention", 2, 3), ModuleId("neuron", 1, 5)),
        *(ModuleId("neuron", 1, 9), ModuleId("mlp", 1), ModuleId("mlp", 2, 7)),
        ModuleId("final", 0),
    ]
    experts = FAMILIES[model.config.model_type].down_proj is None
    return [
        module
        for module in found
        if has(model, module.kind)
        and not (experts and module.kind == "mlp")
        and (module.kind != "residual_in" or route_of(model.config.model_type).only_tokens)
    ]


def edits_everywhere(model: PreTrainedModel) -> tuple[Edit, ...]:
    """At each of the places, several affine edits, which add constants where they may."""
    shape, model_type = configured_shape(model.config), model.config.model_type
    edits = []
    for number, module in enumerate(sites_of(model)):
        allowed = AFFINE if route_of(model_type).bias(module.kind) else ("project_out", "rotate")
        wide = shape.width(module) > 1
        names = [name for name in allowed if wide or name != "rotate"]
        for step in range(2):
            edits.append(edit_of(names[(number + 3 * step) % len(names)], shape, module))
    for kind in ("residual_mid", "layer", "residual_in"):
        written = "layer" if kind == "residual_in" else kind
        if has(model, kind) and route_of(model_type).bias(written):
            edits.append(edit_of("add", shape, ModuleId(kind, 1)))
    for units in ((ModuleId("head", 1, 2), ModuleId("head", 1, 3)), (ModuleId("neuron", 1, 9),)):
        if has(model, units[0].kind):  # read what the edits before them leave
            edits.append(edit_of("rank_one", shape, *units))
    return tuple(edits)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_edits_at_all_places_of_a_family_are_baked_together(family: str, tmp_path: Path) -> None:
    model = tiny_family(family)
    made = check_parity(model, edits_everywhere(model), tmp_path / "made")
    assert made.weights


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tied llama": ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "tied granite": ("granite", {"tie_word_embeddings": True, "embedding_multiplier": 3.0}),
    "qwen2 without a window, tied": (
        "qwen2",
        {"use_sliding_window": False, "tie_word_embeddings": True},
    ),
    "sequential neox": ("gpt_neox", {"use_parallel_residual": False}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_baked_too(name: str, tmp_path: Path) -> None:
    family, changes = VARIANTS[name]
    model = tiny_family(family, **changes)
    check_parity(model, edits_everywhere(model), tmp_path / "made")
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert not config.get("tie_word_embeddings", False)


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("module", sites_of(tiny_family("gpt2")), ids=lambda m: m.short_name)
def test_each_operator_is_baked_at_each_place_alone(
    name: str, module: ModuleId, tmp_path: Path
) -> None:
    model = tiny_family("gpt2")
    shape = configured_shape(model.config)
    if name == "rotate" and shape.width(module) == 1:
        pytest.skip("there is no plane in a single dimension")
    if module.kind == "final" and name in CONSTANTS:
        pytest.skip("GPT-2's language-model head has no bias")
    check_parity(model, (edit_of(name, shape, module),), tmp_path / "made")


def ablating(shape: ModelShape, v: Tensor, kind: ModuleKind, n_layers: int | None = None) -> Edit:
    modules = tuple(ModuleId(kind, layer) for layer in range(n_layers or shape.n_layers))
    tensors = {"direction": v.expand(len(modules), -1)}
    operator = OPERATORS.made("project_out", {})
    return Edit(modules, tensors, torch.ones(len(modules)), operator)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "phi", "granite", "stablelm"])
def test_a_direction_taken_from_every_writer_is_gone_from_the_residual_stream(
    family: str, tmp_path: Path
) -> None:
    """Directional ablation (arXiv 2406.11717): the stream itself has nothing along it any more."""
    model = tiny_family(family)
    shape = configured_shape(model.config)
    v = torch.nn.functional.normalize(
        torch.randn(shape.d_model, generator=torch.Generator().manual_seed(5)), dim=0
    )
    writers = (
        ablating(shape, v, "residual_in", 1),
        ablating(shape, v, "attention"),
        ablating(shape, v, "mlp"),
    )
    made = check_parity(model, writers, tmp_path / "made")
    weights = load_file(tmp_path / "made" / "model.safetensors")
    assert len(made.weights) == 2 * shape.n_layers + (2 if family == "gpt2" else 1)
    for name in made.weights:
        out = weights[name]
        reads = out @ v if family == "gpt2" or "embed" in name else v @ out
        assert reads.norm() < 1e-6, name
    stream = tuple(kind for kind in ("residual_in", "residual_mid", "layer") if has(model, kind))
    by_hooks = logits_of(model, Intervention(tuple(ablating(shape, v, k) for k in stream), 1.0))
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "made").eval()
    torch.testing.assert_close(logits_of(back), by_hooks, atol=1e-4, rtol=0)


def test_what_adds_nothing_leaves_the_architecture_as_it_is(tmp_path: Path) -> None:
    model = tiny_family("mistral")
    shape = configured_shape(model.config)
    edits = (edit_of("project_out", shape, ModuleId("head", 1, 1)),)
    made = check_parity(model, edits, tmp_path / "made")
    assert (made.architecture, made.biases) == ("MistralForCausalLM", ())
    assert made.weights == ("model.layers.1.self_attn.o_proj.weight",)


def test_edits_of_one_place_are_done_in_their_order(tmp_path: Path) -> None:
    model = tiny_family("llama")
    shape = configured_shape(model.config)
    add = edit_of("add", shape, ModuleId("mlp", 1))
    out = edit_of("project_out", shape, ModuleId("mlp", 1))
    out = replace(out, weights=torch.ones(1), tensors={"direction": unit(add)})
    check_parity(model, (add, out), tmp_path / "one")
    check_parity(model, (out, add), tmp_path / "other")
    biases = [
        load_file(tmp_path / name / "model.safetensors")["model.layers.1.mlp.down_proj.bias"]
        for name in ("one", "other")
    ]
    assert biases[0].norm() < 1e-6 < biases[1].norm()


def unit(edit: Edit) -> Tensor:
    return torch.nn.functional.normalize(edit.tensors["direction"], dim=-1)


def test_weights_in_half_precision_are_worked_out_in_float32_and_rounded_once(
    tmp_path: Path,
) -> None:
    model = tiny_family("llama", dtype=torch.bfloat16)
    shape = configured_shape(model.config)
    edit = edit_of("clamp", shape, ModuleId("mlp", 1))
    made = bake_tiny(model, (edit,), tmp_path / "made")
    weights = load_file(tmp_path / "made" / "model.safetensors")
    assert made.dtype == "bfloat16" and {w.dtype for w in weights.values()} == {torch.bfloat16}
    v, c = edit.tensors["direction"][0].double(), float(edit.tensors["target"][0])
    projector = torch.eye(32).double() - 0.5 * torch.outer(v, v)
    exact = projector @ model.model.layers[1].mlp.down_proj.weight.double()
    found = weights["model.layers.1.mlp.down_proj.weight"]
    torch.testing.assert_close(found, exact.to(torch.bfloat16), atol=1e-6, rtol=2**-8)
    bias = weights["model.layers.1.mlp.down_proj.bias"]
    torch.testing.assert_close(bias, (0.5 * c * v).to(torch.bfloat16), atol=1e-6, rtol=2**-8)


class Lying(Mirror):
    """A plug-in of somebody, who forgot to say that it bends."""

    affine = True


def test_an_operator_that_is_not_affine_though_it_says_so_is_not_baked(tmp_path: Path) -> None:
    edit = replace(edit_of("mirror", SHAPE, WIDE), operator=Lying(Frozen()))
    with pytest.raises(UserInputError, match="says that it is affine.*--format spec"):
        bake_tiny(tiny_family("llama"), (edit,), tmp_path / "made")


class Ajar(Gate):
    """A gate, whatever it says."""

    Params = Frozen

    def strength(self, seen: Any, tensors: Any) -> Tensor:  # noqa: ARG002
        return torch.ones(1, 1)


SHAPE = ModelShape(3, 4, 12, 32, 48)
WIDE = ModuleId("mlp", 1)
REFUSED: dict[str, tuple[Edit, str, str]] = {
    "scope": (
        edit_of("project_out", SHAPE, WIDE, scope="last"),
        "llama",
        "'last' steers some positions only.*--format spec",
    ),
    "gate": (
        edit_of("add", SHAPE, WIDE, gate=FittedGate(Ajar(Frozen()))),
        "llama",
        "a gate opens and closes.*--format spec",
    ),
    "keep_norm": (
        edit_of("add", SHAPE, WIDE, keep_norm=True),
        "llama",
        "keep_norm.*--format spec",
    ),
    "mirror": (
        edit_of("mirror", SHAPE, WIDE),
        "llama",
        "where v . x < t is not affine.*--format spec",
    ),
    "absolute": (
        replace(
            edit_of("rotate", SHAPE, WIDE), operator=OPERATORS.made("rotate", {"to": "absolute"})
        ),
        "llama",
        "is not affine.*--format spec",
    ),
    "residual": (
        edit_of("project_out", SHAPE, ModuleId("layer", 1)),
        "llama",
        "residual stream itself.*--format spec.*residual_in of layer 0, and attention and mlp",
    ),
    "input of a later layer": (
        edit_of("scale", SHAPE, ModuleId("residual_in", 2)),
        "qwen2",
        "residual stream itself.*'layer'",
    ),
    "residual behind norms": (
        edit_of("project_out", SHAPE, ModuleId("layer", 1)),
        "gemma2",
        "residual stream itself.*in every token scope.$",
    ),
    "experts": (
        edit_of("project_out", SHAPE, WIDE),
        "mixtral",
        "'mixtral' shares the work out to experts.*--format spec",
    ),
    "no bias": (
        edit_of("clamp", SHAPE, ModuleId("attention", 1)),
        "stablelm",
        "'attention'.*'stablelm'.*llama.*--format spec",
    ),
    "images": (
        edit_of("project_out", SHAPE, ModuleId("residual_in", 0)),
        "gemma3",
        "not the embedding of tokens alone.*--format spec",
    ),
    "unknown": (edit_of("project_out", SHAPE, WIDE), "mamba", "'mamba' is unknown; known: .*llama"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_weights_can_do_is_refused_by_name_with_a_way_out(name: str) -> None:
    edit, model_type, message = REFUSED[name]
    for target in ("bake", "gguf", "serve"):
        found = can(Intervention((edit,), 1.0), target, model_type)
        assert found.verdict == "refused"
        with pytest.raises(UserInputError, match=message):
            raise UserInputError(found.reason)


def test_hooks_refuse_only_what_the_architecture_lacks() -> None:
    neurons = Intervention((edit_of("scale", SHAPE, ModuleId("neuron", 1, 5)),))
    assert can(neurons, "hooks", "llama").verdict == "exactly"
    assert can(neurons, "hooks", "mixtral").verdict == "refused"
    for name, (edit, model_type, _) in REFUSED.items():
        verdict = "refused" if name == "unknown" else "exactly"
        assert can(Intervention((edit,)), "hooks", model_type).verdict == verdict


def test_a_bias_that_llama_cpp_is_not_known_to_keep_is_no_gguf() -> None:
    heads = Intervention((edit_of("add", SHAPE, ModuleId("head", 1, 0)),))
    no_bias = Intervention((edit_of("project_out", SHAPE, ModuleId("head", 1, 0)),))
    found = {
        model_type: can(heads, "gguf", model_type).verdict
        for model_type in ("llama", "qwen2", "qwen3")
    }
    assert found == {"llama": "exactly", "qwen2": "with a difference", "qwen3": "refused"}
    assert can(no_bias, "gguf", "qwen3").verdict == "exactly"
    first = Intervention((edit_of("project_out", SHAPE, ModuleId("residual_in", 0)),))
    assert can(first, "gguf", "gemma").verdict == "refused"  # its head is its embedding there


def test_lofit_takes_heads_and_says_that_it_takes_no_more() -> None:
    heads = Intervention((edit_of("add", SHAPE, ModuleId("head", 1, 0)),))
    found = can(heads, "lofit", "llama")
    assert found.verdict == "with a difference" and "without what is done to them" in found.reason
    assert can(Intervention((edit_of("add", SHAPE, WIDE),)), "lofit", "llama").verdict == "refused"


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_every_family_has_an_answer_for_every_target(family: str) -> None:
    shape = configured_shape(tiny_family(family).config)
    add = Intervention((edit_of("add", shape, ModuleId("head", 1, 0)),))
    assert all(can(add, target, family).reason for target in TARGETS)
