"""What hooks do with operators, scopes and gates, against the network's own modules."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.gates import FittedGate, Gate, Seen
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.steering.spec import SteeringSpec
from real_tasks.steering.spec_files import FACTS_FILE, TENSORS_FILE
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.scopes import PromptEnds
from real_tasks.vocabulary.types import ModelShape, ModuleId, ModuleKind
from tests.unit.tiny_models import tiny_llama, tiny_loaded, vectors_of

IDS = torch.tensor([[1, 9, 12, 30, 41, 7]])


def unit(*shape: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def projecting(modules: tuple[ModuleId, ...], width: int, **other: object) -> Edit:
    tensors = {"direction": unit(len(modules), width)}
    operator = OPERATORS.made("project_out", {})
    return Edit(modules, tensors, torch.ones(len(modules)), operator, **other)


def seen_by(module: torch.nn.Module, inputs: bool, run: object) -> Tensor:
    found = []
    hook = (
        module.register_forward_pre_hook(lambda _, args: found.append(args[0]))
        if inputs
        else module.register_forward_hook(lambda _m, _a, out: found.append(out))
    )
    run()
    hook.remove()
    return found[-1][0] if isinstance(found[-1], tuple) else found[-1]


@torch.no_grad()
def test_heads_that_are_projected_have_nothing_left_along_their_direction_and_others_all() -> None:
    loaded = tiny_loaded()
    shape, o_proj = loaded.shape, loaded.model.model.layers[1].self_attn.o_proj
    heads = (ModuleId("head", 1, 3), ModuleId("head", 1, 0))
    edit = projecting(heads, shape.head_dim)

    def read() -> Tensor:
        return seen_by(o_proj, True, lambda: loaded.model(IDS))[0].view(6, shape.n_heads, -1)

    before = read()
    with applied(loaded, Intervention((edit,), 1.0)):
        after = read()
    for row, head in enumerate(heads):
        v = edit.tensors["direction"][row]
        torch.testing.assert_close(after[:, head.head] @ v, torch.zeros(6), atol=1e-6, rtol=0)
        expected = before[:, head.head] - torch.outer(before[:, head.head] @ v, v)
        torch.testing.assert_close(after[:, head.head], expected)
    others = [h for h in range(shape.n_heads) if h not in (0, 3)]
    assert torch.equal(before[:, others], after[:, others])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["residual_in", "attention", "residual_mid", "mlp", "layer"])
def test_a_part_is_changed_where_it_lies(kind: ModuleKind) -> None:
    loaded = tiny_loaded()
    edit = projecting((ModuleId(kind, 1),), loaded.shape.d_model)
    v = edit.tensors["direction"][0]
    block = loaded.model.model.layers[1]
    place, inputs = {
        "residual_in": (block.input_layernorm, True),
        "attention": (block.self_attn.o_proj, False),
        "residual_mid": (block.post_attention_layernorm, True),
        "mlp": (block.mlp, False),
        "layer": (loaded.model.model.layers[2].input_layernorm, True),
    }[kind]
    with applied(loaded, Intervention((edit,), 1.0)):
        found = seen_by(place, inputs, lambda: loaded.model(IDS))
    torch.testing.assert_close(found @ v, torch.zeros(1, 6), atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_is_changed_between_attention_and_mlp_goes_on_along_the_residual_stream() -> None:
    loaded = tiny_loaded()
    push = Intervention.adding({1: 3 * unit(32)}, "all", "residual_mid")
    same = Intervention.adding({1: 3 * unit(32)}, "all", "attention")
    with applied(loaded, push):
        found = loaded.model(IDS).logits
    with applied(loaded, same):  # in a Llama it is added to the residual stream as it is
        torch.testing.assert_close(found, loaded.model(IDS).logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_neuron_and_a_single_dimension_are_changed_alone() -> None:
    loaded = tiny_loaded()
    shape, block = loaded.shape, loaded.model.model.layers[0]
    for kind, module, inputs in (("neuron", block.mlp.down_proj, True), ("mlp", block.mlp, False)):
        one = Edit(
            (ModuleId(kind, 0, 5),),
            {"direction": torch.ones(1, 1), "scale": torch.ones(1)},
            torch.ones(1),
        )
        before = seen_by(module, inputs, lambda: loaded.model(IDS))
        with applied(loaded, Intervention((one,), 2.0)):
            after = seen_by(module, inputs, lambda: loaded.model(IDS))
        width = shape.part_width(kind)
        expected = before + 2 * torch.nn.functional.one_hot(torch.tensor(5), width)
        assert torch.equal(after, expected)


@torch.no_grad()
def test_at_strength_zero_logits_are_those_of_the_bare_model_bit_for_bit() -> None:
    loaded = tiny_loaded()
    edit = projecting((ModuleId("layer", 1),), loaded.shape.d_model, keep_norm=True)
    bare = loaded.model(IDS).logits
    with applied(loaded, Intervention((edit,), 0.0)):
        assert torch.equal(loaded.model(IDS).logits, bare)


@torch.no_grad()
def test_lengths_are_kept_where_that_is_asked_for() -> None:
    loaded = tiny_loaded()
    edit = projecting((ModuleId("layer", 1),), loaded.shape.d_model, keep_norm=True)
    following = loaded.model.model.layers[2].input_layernorm
    before = seen_by(following, True, lambda: loaded.model(IDS))
    with applied(loaded, Intervention((edit,), 0.7)):
        after = seen_by(following, True, lambda: loaded.model(IDS))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(before.norm(dim=-1), after.norm(dim=-1))


@torch.no_grad()
def test_counts_from_both_ends_mean_the_prompt_s_tokens_whatever_the_padding() -> None:
    loaded = tiny_loaded()
    scope = PromptEnds(first=1, last=2)
    push = Intervention.adding({1: 5 * unit(32)}, scope, "layer")
    ids = torch.tensor([[0, 0, 1, 9, 12, 30], [1, 9, 12, 30, 41, 7]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    following = loaded.model.model.layers[2].input_layernorm

    def read() -> Tensor:
        return seen_by(following, True, lambda: loaded.model(ids, attention_mask=mask))

    before = read()
    with applied(loaded, push):
        moved = (read() - before).norm(dim=-1) > 1
    assert moved.int().tolist() == [[0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1]]


class LongPrompts(Gate):
    """Open for prompts of more than some tokens; decides once."""

    class Params(Frozen):
        tokens: int

    once = True

    def strength(self, seen: Seen, _tensors: Mapping[str, Tensor]) -> Tensor:
        return (seen.in_prompt.sum(1, keepdim=True) > self.params.tokens).float()


def gated(tokens: int) -> Intervention:
    gate = FittedGate(LongPrompts(LongPrompts.Params(tokens=tokens)))
    one = torch.ones(1)
    tensors = {"direction": 9 * unit(1, 32), "scale": one}
    return Intervention((Edit((ModuleId("layer", 1),), tensors, one, gate=gate),))


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_gate_is_decided_on_the_prompt_and_kept_for_what_is_generated(use_cache: bool) -> None:
    loaded = tiny_loaded()
    prompts = torch.tensor([[0, 0, 0, 1, 9, 12], [1, 9, 12, 30, 41, 7]])
    mask = (prompts != 0).long()

    def texts(ids: Tensor, mask: Tensor) -> list[list[int]]:
        return loaded.model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=6,
            do_sample=False,
            use_cache=use_cache,
            output_logits=True,
            return_dict_in_generate=True,
        )

    bare = texts(prompts, mask)
    with applied(loaded, gated(3)):
        steered = texts(prompts, mask)
        alone = texts(prompts[1:], mask[1:])
        again = texts(prompts, mask)
    assert torch.equal(torch.stack(bare.logits)[:, 0], torch.stack(steered.logits)[:, 0])
    assert not torch.equal(bare.sequences[1], steered.sequences[1])
    assert torch.equal(alone.sequences[0], steered.sequences[1])
    assert torch.equal(again.sequences, steered.sequences)


@torch.no_grad()
def test_a_gate_that_decides_once_does_not_guess_what_it_has_not_seen() -> None:
    loaded = tiny_loaded()
    cache = loaded.model(IDS, use_cache=True).past_key_values
    with (
        applied(loaded, gated(3)),
        pytest.raises(UserInputError, match="read outside of this context"),
    ):
        loaded.model(torch.tensor([[9]]), past_key_values=cache)


def test_a_gate_that_reads_behind_its_edit_is_refused() -> None:
    class Late(LongPrompts):
        reads = (ModuleId("mlp", 1),)

    one = torch.ones(1)
    gate = FittedGate(Late(Late.Params(tokens=1)))
    tensors = {"direction": unit(1, 32), "scale": one}
    edit = Edit((ModuleId("attention", 1),), tensors, one, gate=gate)
    with (
        pytest.raises(UserInputError, match="lies behind attention of layer 1"),
        applied(tiny_loaded(), Intervention((edit,))),
    ):
        pass


def test_a_spec_of_format_2_is_read(tmp_path: Path) -> None:
    shape = ModelShape(3, 8, 12, 32)
    tensors = {
        "directions": unit(2, 12),
        "sigmas": torch.tensor([0.5, 2.0]),
        "strengths": torch.tensor([1.0, 0.25]),
    }
    facts = {
        "format_version": 2,
        "model": "tiny",
        "model_digest": "sha256:abc",
        "modules": [
            {"kind": "head", "layer": 0, "head": 1},
            {"kind": "head", "layer": 2, "head": 7},
        ],
        "alpha": 3.0,
        "token_scope": "last",
        "shape": {k: v for k, v in asdict(shape).items() if k != "d_mlp"},
        "weights": "",
        "provenance": {"method": "real"},
    }
    save_file(tensors, tmp_path / TENSORS_FILE)
    (tmp_path / FACTS_FILE).write_text(json.dumps(facts))
    spec = SteeringSpec.load(tmp_path)
    found = vectors_of(spec.intervention(), shape)
    assert spec.edits[0].scope == "last" and spec.provenance == {"method": "real"}
    torch.testing.assert_close(found[0].view(8, 12)[1], 3 * 0.5 * unit(2, 12)[0])
    torch.testing.assert_close(found[2].view(8, 12)[7], 3 * 0.25 * 2 * unit(2, 12)[1])
    with torch.no_grad(), spec.applied_to(tiny_llama().eval()):
        pass


def test_a_spec_of_several_edits_comes_back_and_steers_alike(tmp_path: Path) -> None:
    loaded = tiny_loaded()
    one = torch.ones(1)
    add = Edit((ModuleId("layer", 0),), {"direction": unit(1, 32), "scale": one}, one, scope="last")
    ends = PromptEnds(first=2)
    project = projecting((ModuleId("mlp", 2),), 32, scope=ends, keep_norm=True)
    spec = SteeringSpec("tiny", "d", (add, project), 0.8, loaded.shape)
    spec.save(tmp_path)
    back = SteeringSpec.load(tmp_path)
    assert [edit.scope for edit in back.edits] == ["last", ends]
    assert back.explain() == spec.explain()
    assert "(v . x) v, and the length kept, at strength 0.8" in spec.explain()
    with torch.no_grad():
        with spec.applied_to(loaded):
            expected = loaded.model(IDS).logits
        with back.applied_to(loaded):
            assert torch.equal(loaded.model(IDS).logits, expected)
