"""Steering as LoRA adapters: what peft and our own loader make of them, against the hooks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.export.lora import LARGEST_RANK, save_lora
from real_tasks.export.routes import ALWAYS, WRITTEN, route_of
from real_tasks.export.targets import can
from real_tasks.models.families import configured_shape
from real_tasks.models.loading import load_model, prepare
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleId
from tests.unit.export.test_export_operators import SHAPE, edit_of, has, logits_of, sites_of
from tests.unit.tiny_models import TINY_FAMILIES, tiny_family, tiny_tokenizer

peft: Any = pytest.importorskip("peft")
CPU = ExecutionConfig(device="cpu")


def edits_everywhere(model: PreTrainedModel) -> tuple[Edit, ...]:
    """At each place a change of low rank, where the model has no bias that it would change."""
    shape, model_type = configured_shape(model.config), model.config.model_type
    edits = []
    for number, module in enumerate(sites_of(model)):
        projection, side = WRITTEN[module.kind]
        flag = route_of(model_type).bias(module.kind)
        config = model.config.get_text_config()
        biased = flag is not None and (flag == ALWAYS or getattr(config, flag, False))
        if side != "output" or projection == "embedding" or not biased:
            name = "rotate" if number % 2 and shape.width(module) > 1 else "project_out"
            edits.append(edit_of(name, shape, module))
    for units in ((ModuleId("head", 1, 2), ModuleId("head", 1, 3)), (ModuleId("neuron", 1, 9),)):
        if has(model, units[0].kind):
            edits.append(edit_of("rank_one", shape, *units))
    return tuple(edits)


def saved(model: PreTrainedModel, edits: tuple[Edit, ...], folder: Path) -> Any:
    """Writes an adapter into ``folder``, and its base model beside it."""
    base = folder.with_name("base")
    model.save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    folder.mkdir()
    loaded = prepare(model, tiny_tokenizer())
    return save_lora(loaded, Intervention(edits), "../base", None, folder)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_base_and_adapter_are_the_steered_model(family: str, tmp_path: Path) -> None:
    model = tiny_family(family)
    plain, edits = logits_of(model), edits_everywhere(model)
    expected = logits_of(model, Intervention(edits))
    made = saved(model, edits, tmp_path / "made")
    assert made.rank < 20 and (expected - plain).abs().max() > 0.01
    by_us = load_model(tmp_path / "made", execution=CPU).model
    by_peft = peft.PeftModel.from_pretrained(tiny_family(family), str(tmp_path / "made")).eval()
    assert set(made.modules) == set(by_peft.targeted_module_names)
    for found in (by_us, by_peft):
        off = logits_of(found) - expected
        assert off.abs().max() < 1e-5 * expected.abs().max()


def unit(seed: int, width: int) -> Tensor:
    drawn = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def test_a_direction_that_is_not_written_any_more_is_of_rank_one(tmp_path: Path) -> None:
    """The weight is ``W - v v^T W``, in bfloat16 too, whose own rounding is not in the adapter."""
    model, v = tiny_family("llama", dtype=torch.bfloat16), unit(3, 32)
    projection = model.model.layers[1].mlp.down_proj.weight.detach().float()
    out = OPERATORS.made("project_out", {})
    edit = Edit((ModuleId("mlp", 1),), {"direction": v[None]}, torch.ones(1), out)
    made = saved(model, (edit,), tmp_path / "made")
    assert (made.rank, made.modules) == (1, ("model.layers.1.mlp.down_proj",))
    weights = load_file(tmp_path / "made" / "adapter_model.safetensors")
    path = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.weight"
    a, b = weights[path.format("A")], weights[path.format("B")]
    for row in range(32):
        for column in range(48):
            along = sum(v[n] * projection[n, column] for n in range(32))
            assert float(b[row, 0] * a[0, column]) == pytest.approx(
                -float(v[row] * along), abs=1e-6
            )


def wide(name: str, *modules: ModuleId, **other: Any) -> Edit:
    return edit_of(name, ModelShape(3, 4, 80, 320, 400), *modules, **other)


REFUSED: dict[str, tuple[tuple[Edit, ...], str, str]] = {
    "constant": (
        (wide("add", ModuleId("head", 1, 0)),),
        "llama",
        r"x \+ s \* sigma \* v adds a constant.*no biases.*--format checkpoint.*--format spec",
    ),
    "one of an affine map": ((wide("affine", ModuleId("mlp", 1)),), "llama", "adds a constant"),
    "scope": ((wide("project_out", ModuleId("mlp", 1), scope="last"),), "llama", "some positions"),
    "bias": (
        (wide("project_out", ModuleId("attention", 1)),),
        "gpt2",
        "changes the bias that the projection of every 'gpt2' has",
    ),
    "full rank": (
        (wide("scale", ModuleId("mlp", 1)),),
        "llama",
        f"weight of down_proj in layer 1 by a matrix of a rank beyond {LARGEST_RANK}",
    ),
    "many neurons": (
        tuple(
            wide("scale", *(ModuleId("neuron", 0, n) for n in some))
            for some in (range(33), range(33, 66))
        ),
        "llama",
        "of down_proj in layer 0",
    ),
    "residual stream": ((wide("project_out", ModuleId("layer", 1)),), "llama", "stream itself"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_change_of_weights_of_low_rank_is_refused_with_the_reason(name: str) -> None:
    edits, model_type, message = REFUSED[name]
    found = can(Intervention(edits), "lora", model_type)
    assert found.verdict == "refused"
    with pytest.raises(UserInputError, match=message):
        raise UserInputError(found.reason)


def test_a_bias_of_this_model_that_would_change_is_refused(tmp_path: Path) -> None:
    edit = edit_of("project_out", SHAPE, ModuleId("attention", 1))
    assert can(Intervention((edit,)), "lora", "llama").verdict == "exactly"
    with pytest.raises(UserInputError, match=r"layers.1.self_attn.o_proj.bias would be another"):
        saved(tiny_family("llama", attention_bias=True), (edit,), tmp_path / "made")


def test_a_method_that_edits_weights_is_of_the_rank_of_its_heads() -> None:
    heads = tuple(ModuleId("head", 1, n) for n in range(3)) + (ModuleId("head", 2, 0),)
    for name in ("rank_one", "remove_write"):
        support = can(Intervention((edit_of(name, SHAPE, *heads),)), "lora", "qwen2")
        assert support.verdict == "exactly" and "low rank" in support.reason
