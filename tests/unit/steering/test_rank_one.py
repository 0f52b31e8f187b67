"""What edits of rank one do to what heads and neurons write, against columns changed by hand."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from real_tasks.export.bake import bake
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.gates import FittedGate, Gate, Seen
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.steering.resuming import steered_states
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId
from tests.unit.steering.test_operators import drawn_tensors
from tests.unit.tiny_models import tiny_loaded

IDS = torch.tensor([[1, 9, 12, 30, 41, 7]])
HEADS = (ModuleId("head", 1, 3), ModuleId("head", 1, 0), ModuleId("head", 2, 5))
NEURONS = (ModuleId("neuron", 0, 7), ModuleId("neuron", 2, 40))


def writing(modules: tuple[ModuleId, ...], width: int, **other: Any) -> Edit:
    operator = OPERATORS.made("rank_one", {})
    weights = torch.linspace(1.0, 0.5, len(modules))
    return Edit(modules, drawn_tensors(operator, len(modules), width), weights, operator, **other)


def by_hand(edits: tuple[Edit, ...], strength: float) -> LoadedModel:
    """The tiny model with its columns changed number by number."""
    made = tiny_loaded()
    for edit in edits:
        for row, module in enumerate(edit.modules):
            block = made.model.model.layers[module.layer]
            is_head = module.kind == "head"
            weight = (block.self_attn.o_proj if is_head else block.mlp.down_proj).weight.data
            width = 12 if is_head else 1
            for i, write in enumerate(edit.tensors["write"][row].tolist()):
                for j, read in enumerate(edit.tensors["read"][row].tolist()):
                    weight[i, module.head * width + j] += (
                        strength * float(edit.weights[row]) * write * read
                    )
    return made


@torch.no_grad()
def test_heads_and_neurons_write_as_if_their_columns_were_changed(tmp_path: Path) -> None:
    loaded, edits = tiny_loaded(), (writing(HEADS, 12), writing(NEURONS, 1))
    bare, changed = loaded.model(IDS).logits, by_hand(edits, 0.7)
    expected = changed.model(IDS).logits
    spec = SteeringSpec("tiny", "d", edits, 0.7, loaded.shape)
    spec.save(tmp_path)
    with SteeringSpec.load(tmp_path).applied_to(loaded):
        torch.testing.assert_close(loaded.model(IDS).logits, expected, atol=1e-4, rtol=1e-4)
    assert (expected - bare).abs().max() > 0.1
    assert torch.equal(loaded.model(IDS).logits, bare)  # nothing is left of it
    assert "W x + s * w (r . x), at strength 0.7" in spec.explain()


@torch.no_grad()
def test_baked_other_columns_keep_their_bytes_and_a_module_without_an_edit_its_own(
    tmp_path: Path,
) -> None:
    loaded, edit = tiny_loaded(), writing(HEADS, 12)
    edit = replace(edit, weights=torch.tensor([1.0, 0.0, 0.0]))
    loaded.tokenizer.save_pretrained(tmp_path / "source")
    (tmp_path / "made").mkdir()
    made = bake(loaded, Intervention((edit,), 1.0), tmp_path / "source", tmp_path / "made")
    assert (made.weights, made.biases) == (("model.layers.1.self_attn.o_proj.weight",), ())
    found = load_file(tmp_path / "made" / "model.safetensors")[made.weights[0]]
    exact = by_hand((edit,), 1.0).model.model.layers[1].self_attn.o_proj.weight
    torch.testing.assert_close(found, exact.detach(), atol=1e-6, rtol=0)
    kept = torch.ones(96, dtype=torch.bool)
    kept[36:48] = False
    before = loaded.model.model.layers[1].self_attn.o_proj.weight
    assert torch.equal(found[:, kept].view(torch.int32), before[:, kept].view(torch.int32))


@torch.no_grad()
@pytest.mark.parametrize("scope", ["all", "generated", "last"])
def test_left_padded_and_cached_texts_are_written_as_alone_and_read_anew(scope: Any) -> None:
    loaded = tiny_loaded()
    edits = (writing(HEADS, 12, scope=scope), writing(NEURONS, 1, scope=scope))
    prompts = torch.tensor([[0, 0, 1, 9, 12, 30], [1, 9, 12, 30, 41, 7]])

    def logits(rows: Tensor, use_cache: bool) -> Tensor:
        made: Any = loaded.model.generate(
            rows,
            attention_mask=(rows != 0).long(),
            max_new_tokens=5,
            do_sample=False,
            use_cache=use_cache,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return torch.stack(made.logits, dim=1)

    with applied(loaded, Intervention(edits, 1.0)):
        together, anew = logits(prompts, True), logits(prompts, False)
        alone = logits(prompts[:1, 2:], True)
    torch.testing.assert_close(together, anew, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)
    assert (logits(prompts, True)[:, 1] - together[:, 1]).abs().max() > 0.1


class Named(Gate):
    """Open, twice as far, at one token."""

    class Params(Frozen):
        token: int

    def strength(self, seen: Seen, _tensors: Mapping[str, Tensor]) -> Tensor:
        assert seen.input_ids is not None
        return 2.0 * (seen.input_ids == self.params.token)


@torch.no_grad()
def test_a_gate_opens_the_writing_of_some_positions_and_no_bit_elsewhere_changes() -> None:
    loaded = tiny_loaded()
    o_proj, seen = loaded.model.model.layers[1].self_attn.o_proj, list[tuple[Tensor, Tensor]]()
    for token in (30, 60):
        gate = FittedGate(Named(Named.Params(token=token)))
        with applied(loaded, Intervention((writing(HEADS[:2], 12, gate=gate),), 0.5)):
            hook = o_proj.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
            loaded.model(IDS)
            hook.remove()
    (x, opened), (_, closed) = seen
    changed = by_hand((writing(HEADS[:2], 12),), 1.0)
    whole = changed.model.model.layers[1].self_attn.o_proj(x)
    assert torch.equal(closed, o_proj(x))
    torch.testing.assert_close(opened[:, 3], whole[:, 3], atol=1e-5, rtol=1e-5)
    others = [0, 1, 2, 4, 5]
    assert torch.equal(opened[:, others], closed[:, others])


@torch.inference_mode()
def test_a_pass_that_is_resumed_is_a_whole_one() -> None:
    loaded, steering = tiny_loaded(), Intervention((writing(HEADS, 12),), 1.0)
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "use_cache": False}
    steered_states(loaded, None, "batch", inputs, torch.tensor([6]))
    resumed = steered_states(loaded, steering, "batch", inputs, torch.tensor([6]))
    with applied(loaded, steering):
        assert torch.equal(resumed, loaded.hidden_states(**inputs))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (writing((ModuleId("mlp", 1),), 32), "expected modules of the kinds head, neuron"),
        (writing(HEADS, 12, keep_norm=True), "keep_norm has no meaning"),
        (
            replace(
                writing(HEADS[:1], 12),
                tensors={"read": torch.ones(1, 12), "write": torch.ones(1, 12)},
            ),
            "write with 12 along its axis d_model, not 32",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(edit: Edit, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        SteeringSpec("tiny", "d", (edit,), 1.0, tiny_loaded().shape)
