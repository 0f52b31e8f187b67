from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from real_tasks.models.identity import weights_fingerprint
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import tiny_family, tiny_llama, tiny_loaded

HALVES = (torch.bfloat16, torch.float16)


def load(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("stored", [torch.float32, *HALVES])
def test_a_checkpoint_is_the_same_in_every_type_that_it_can_be_loaded_in(
    tmp_path: Path, family: str, stored: torch.dtype
) -> None:
    model = tiny_family(family, dtype=stored)
    expected = weights_fingerprint(model)
    model.save_pretrained(tmp_path)
    rounding = [torch.float16] if stored == torch.float32 else []
    for dtype in (torch.float32, *HALVES):
        same = weights_fingerprint(load(tmp_path, dtype)) == expected
        assert same == (dtype not in rounding)


def test_small_numbers_are_the_same_in_every_type() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = 10.0 ** -torch.linspace(0, 9, 61)
    for stored in HALVES:
        values = (torch.randn(61, generator=generator) * sizes).to(stored)
        model = torch.nn.ParameterList([torch.nn.Parameter(values.float())])
        found = {weights_fingerprint(model.to(dtype)) for dtype in (torch.float32, *HALVES)}
        assert len(found) == 1


def test_another_seed_another_shape_and_another_merge_are_other_weights() -> None:
    model = tiny_llama()
    found = {weights_fingerprint(m) for m in (model, tiny_llama(1), tiny_llama(n_layers=2))}
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight += 0.01
        found.add(weights_fingerprint(model))
        model.model.layers[2].input_layernorm.weight *= 1.01
        found.add(weights_fingerprint(model))
        # A change of rank one, as by an adapter that was merged.
        up, down = torch.randn(96, 1), torch.randn(1, 32)
        model.model.layers[0].self_attn.q_proj.weight += 0.05 * up @ down
        found.add(weights_fingerprint(model))
    model.resize_token_embeddings(80)
    assert len(found | {weights_fingerprint(model)}) == 7


def test_layers_that_changed_places_are_other_weights() -> None:
    model = tiny_llama()
    expected = weights_fingerprint(model)
    layers = model.model.layers
    layers[0], layers[1] = layers[1], layers[0]
    assert weights_fingerprint(model) != expected


def test_tied_weights_count_once_however_they_are_laid_out() -> None:
    tied = tiny_family("qwen3")
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    expected = weights_fingerprint(tied)
    tied.lm_head.weight = torch.nn.Parameter(tied.lm_head.weight.clone())
    assert weights_fingerprint(tied) == expected


def test_copies_and_models_that_are_being_steered_are_the_same() -> None:
    loaded = tiny_loaded()
    assert weights_fingerprint(loaded.private_copy().model) == weights_fingerprint(loaded.model)
    assert weights_fingerprint(loaded.model).startswith("sha256:")


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_model_whose_weights_are_elsewhere_until_needed_is_the_same(
    tmp_path: Path, family: str
) -> None:
    accelerate = pytest.importorskip("accelerate", reason="comes with the extra 'large'")
    expected = weights_fingerprint(tiny_family(family))
    on_cpu, on_disk = tiny_family(family), tiny_family(family)
    accelerate.cpu_offload(on_cpu, execution_device=torch.device("cpu"))
    accelerate.disk_offload(on_disk, tmp_path, execution_device=torch.device("cpu"))
    for model in (on_cpu, on_disk):
        assert next(model.parameters()).is_meta
        assert weights_fingerprint(model) == expected


def test_a_model_without_weights_is_refused() -> None:
    with torch.device("meta"):
        model = tiny_llama()
    with pytest.raises(UserInputError, match=r"model\.embed_tokens\.weight is on the device meta"):
        weights_fingerprint(model)
