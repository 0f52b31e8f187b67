"""The parts of every family of `FAMILIES` add up to one another, on tiny models of its class."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from real_tasks.models.families import FAMILIES, configured_shape
from real_tasks.models.places import hook_output, model_shape, places, projection_weight
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleId, ModuleKind
from tests.unit.tiny_models import TINY_FAMILIES, tiny_family

SIDE_BY_SIDE = ("cohere", "cohere2", "gpt_neox", "phi", "stablelm")
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe")
SEQUENTIAL: dict[str, dict[str, Any]] = {
    "gpt_neox": {"use_parallel_residual": False},
    "stablelm": {"use_parallel_residual": False},
}
"""What makes attention and feed-forward of a family run one after the other."""
AFTER_ATTENTION = {
    "gemma2": "post_attention_layernorm",
    "gemma3": "post_attention_layernorm",
    "gemma3_text": "post_attention_layernorm",
    "glm4": "post_self_attn_layernorm",
    "olmo2": "post_attention_layernorm",
    "olmo3": "post_attention_layernorm",
}
"""The norm of what the attention writes, in families that have one."""
AFTER_MLP = {name: "post_feedforward_layernorm" for name in AFTER_ATTENTION} | {
    "glm4": "post_mlp_layernorm"
}
WITH_A_MIDDLE = [name for name in TINY_FAMILIES if name not in SIDE_BY_SIDE or name in SEQUENTIAL]
IDS = torch.tensor([[1, 9, 23, 14, 40, 11, 8, 30, 17, 60], [1, 33, 12, 50, 9, 28, 7, 41, 19, 22]])

every_family = pytest.mark.parametrize("name", TINY_FAMILIES)


@cache
def model_of(name: str) -> PreTrainedModel:
    return tiny_family(name, **SEQUENTIAL.get(name, {}))


@contextmanager
def kept(model: PreTrainedModel, kinds: Sequence[ModuleKind]) -> Iterator[dict[Any, Tensor]]:
    found: dict[Any, Tensor] = {}

    with ExitStack() as hooks:
        for kind in kinds:
            for layer, place in enumerate(places(model, kind)):

                def keep(values: Tensor, key: Any = (kind, layer)) -> None:
                    found[key] = values.clone()

                hooks.callback(place.hook(keep).remove)
        yield found


@torch.no_grad()
def parts(model: PreTrainedModel, *kinds: ModuleKind) -> dict[Any, Tensor]:
    with kept(model, kinds) as found:
        model(IDS)
    return found


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def written(model: PreTrainedModel, name: str, layer: nn.Module, which: str, out: Tensor) -> Tensor:
    """What a part adds to the residual stream, of what its last projection puts out."""
    norms = AFTER_ATTENTION if which == "attention" else AFTER_MLP
    normed = layer.get_submodule(norms[name])(out) if name in norms else out
    return normed * getattr(model.config, "residual_multiplier", 1.0)


@every_family
def test_the_input_of_a_block_is_the_output_of_the_one_before_it(name: str) -> None:
    found = parts(model_of(name), "residual_in", "layer")
    for layer in (1, 2):
        assert torch.equal(found["residual_in", layer], found["layer", layer - 1])
    assert not torch.allclose(found["residual_in", 0], found["layer", 0], atol=1e-2)


@every_family
@torch.no_grad()
def test_the_final_part_is_what_the_language_model_head_gets(name: str) -> None:
    model, got = model_of(name), []
    with kept(model, ["final"]) as found:
        head = model.get_submodule(FAMILIES[name].lm_head)
        handle = head.register_forward_pre_hook(lambda _module, args: got.append(args[0]))
        model(IDS)
        handle.remove()
    assert list(found) == [("final", 0)]
    assert torch.equal(found["final", 0], got[0])


@pytest.mark.parametrize(
    ("name", "unit", "whole"),
    [
        *((name, "head", "attention") for name in TINY_FAMILIES),
        *((name, "neuron", "mlp") for name in TINY_FAMILIES if name not in EXPERTS),
    ],
)
@torch.no_grad()
def test_what_units_write_sums_to_their_part_less_its_bias(
    name: str, unit: ModuleKind, whole: ModuleKind
) -> None:
    model = model_of(name)
    shape, found = model_shape(model), parts(model, unit, whole)
    for layer, place in enumerate(places(model, unit)):
        weight = projection_weight(place.module)
        summed = torch.zeros(*IDS.shape, shape.d_model)
        for module in shape.layer_modules(unit, layer):
            span = shape.span(module)
            summed += found[unit, layer][..., span] @ weight[:, span].T
        bias = getattr(place.module, "bias", None)
        close(summed, found[whole, layer] - (0 if bias is None else bias))


@pytest.mark.parametrize("name", WITH_A_MIDDLE)
def test_the_residual_stream_in_the_middle_adds_what_attention_writes(name: str) -> None:
    model = model_of(name)
    found = parts(model, "residual_in", "attention", "residual_mid", "mlp", "layer")
    for number, place in enumerate(places(model, "layer")):
        block, mid = place.module, found["residual_mid", number]
        attention = written(model, name, block, "attention", found["attention", number])
        close(mid, found["residual_in", number] + attention)
        close(
            found["layer", number], mid + written(model, name, block, "mlp", found["mlp", number])
        )


@pytest.mark.parametrize("name", [name for name in WITH_A_MIDDLE if name not in AFTER_ATTENTION])
@torch.no_grad()
def test_a_change_in_the_middle_is_what_the_attention_could_have_written(name: str) -> None:
    """So it is in families without a norm between what it writes and the residual stream."""
    model = model_of(name)
    change = torch.randn(32, generator=torch.Generator().manual_seed(1))
    middle, attention = places(model, "residual_mid")[1], places(model, "attention")[1]
    assert middle.also_output_of is not None
    plain = model(IDS).logits
    with ExitStack() as hooks:
        hooks.callback(middle.hook(lambda values: values + change).remove)
        hooks.callback(hook_output(middle.also_output_of, lambda values: values + change).remove)
        found = model(IDS).logits
    scale = getattr(model.config, "residual_multiplier", 1.0)
    handle = attention.hook(lambda values: values + change / scale)
    close(found, model(IDS).logits)
    handle.remove()
    assert (found - plain).norm() > 0.05 * plain.norm()
    assert torch.equal(model(IDS).logits, plain)


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_parallel_blocks_have_no_middle(name: str) -> None:
    with pytest.raises(UserInputError, match="side by side") as caught:
        places(tiny_family(name), "residual_mid")
    able = str(caught.value).rpartition(": ")[2].split(", ")
    assert set(able) == set(TINY_FAMILIES) - set(SIDE_BY_SIDE)


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_have_no_neurons(name: str) -> None:
    with pytest.raises(UserInputError, match="experts") as caught:
        places(tiny_family(name), "neuron")
    able = str(caught.value).rpartition(": ")[2].split(", ")
    assert set(able) == set(TINY_FAMILIES) - set(EXPERTS)
    assert model_shape(tiny_family(name)).d_mlp == 0


@every_family
def test_the_configuration_tells_the_number_of_neurons(name: str) -> None:
    model = model_of(name)
    expected = 0 if name in EXPERTS else 4 * 32 if name == "gpt2" else 48
    assert configured_shape(model.config).d_mlp == model_shape(model).d_mlp == expected


def test_another_number_of_neurons_than_configured_is_named() -> None:
    model = tiny_family("llama")
    model.config.intermediate_size = 50
    with pytest.raises(UserInputError, match="down_proj has 48 numbers.*50 neurons.*intermediate"):
        model_shape(model)


SHAPE = ModelShape(n_layers=2, n_heads=4, head_dim=3, d_model=10, d_mlp=7)


@pytest.mark.parametrize(
    ("module", "span", "label", "short_name"),
    [
        (ModuleId("head", 1, 2), slice(6, 9), "layer 1, head 2", "L1H2"),
        (ModuleId("neuron", 1, 6), slice(6, 7), "layer 1, neuron 6", "L1N6"),
        (ModuleId("neuron", 1), slice(0, 7), "neurons of layer 1", "NEURONS1"),
        (ModuleId("layer", 0), slice(0, 10), "layer 0", "L0"),
        (ModuleId("mlp", 1), slice(0, 10), "MLP of layer 1", "MLP1"),
        (ModuleId("mlp", 1, 9), slice(9, 10), "MLP of layer 1, dimension 9", "MLP1D9"),
        (ModuleId("attention", 0), slice(0, 10), "attention of layer 0", "ATT0"),
        (ModuleId("residual_in", 1), slice(0, 10), "input of layer 1", "IN1"),
        (ModuleId("residual_mid", 1), slice(0, 10), "middle of layer 1", "MID1"),
        (ModuleId("final", 0), slice(0, 10), "output of the last norm", "FINAL"),
    ],
)
def test_modules_have_their_numbers_of_the_part_and_names(
    module: ModuleId, span: slice, label: str, short_name: str
) -> None:
    assert SHAPE.has(module)
    assert SHAPE.span(module) == span
    assert SHAPE.width(module) == span.stop - span.start
    assert (module.label, module.short_name) == (label, short_name)


@pytest.mark.parametrize(
    "module",
    [
        ModuleId("head", 0, 4),
        ModuleId("head", 2, 0),
        ModuleId("neuron", 0, 7),
        ModuleId("layer", 0, 10),
        ModuleId("layer", 0, -2),
        ModuleId("final", 1),
    ],
)
def test_what_a_model_does_not_have_is_told(module: ModuleId) -> None:
    assert not SHAPE.has(module)


@pytest.mark.parametrize(
    ("kind", "count", "width"),
    [
        ("head", 8, 3),
        ("neuron", 14, 1),
        ("layer", 2, 10),
        ("residual_mid", 2, 10),
        ("final", 1, 10),
    ],
)
def test_the_modules_of_a_kind_fill_their_parts(kind: ModuleKind, count: int, width: int) -> None:
    modules = SHAPE.modules(kind)
    assert len(modules) == len(set(modules)) == count
    assert {SHAPE.width(module) for module in modules} == {SHAPE.width(kind)} == {width}
    numbers = [(m.layer, n) for m in modules for n in range(*SHAPE.span(m).indices(99))]
    layers = range(SHAPE.n_layers_of(kind))
    assert numbers == [(layer, n) for layer in layers for n in range(SHAPE.part_width(kind))]
