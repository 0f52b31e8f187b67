import json
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config

from real_tasks.errors import UserInputError
from real_tasks.interventions import applied
from real_tasks.models import (
    checkpoint_shape,
    load_model,
    model_shape,
    output_projections,
    prepare,
    resolve_device,
)
from tests.unit.tiny_models import (
    random_intervention,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_loads_for_reading_only_and_gives_the_same_logits(checkpoint: Path) -> None:
    loaded = load_model(checkpoint, "float32", "cpu")
    ids = torch.tensor([[1, 9, 12, 30]])
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    torch.testing.assert_close(loaded.model(ids).logits, tiny_llama().eval()(ids).logits)
    assert loaded.tokenizer("w0 w1")["input_ids"] == [1, 8, 9]


def test_the_decoder_followed_by_the_head_is_the_model() -> None:
    for model in (tiny_llama(), tiny_qwen2()):
        loaded = prepare(model, tiny_tokenizer())
        ids = torch.tensor([[1, 9, 12, 30]])
        hidden = loaded.decoder(input_ids=ids).last_hidden_state
        torch.testing.assert_close(loaded.lm_head(hidden), loaded.model(ids).logits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_take_the_type_that_is_asked_for(checkpoint: Path, dtype: str) -> None:
    loaded = load_model(str(checkpoint), dtype, "cpu")
    assert loaded.model.dtype == getattr(torch, dtype)
    assert torch.get_default_dtype() == torch.float32


def test_the_shape_has_query_heads_and_the_explicit_head_dim() -> None:
    shape = tiny_loaded().shape
    assert (shape.n_layers, shape.n_heads, shape.head_dim) == (3, 8, 12)


def test_head_dim_is_the_hidden_size_over_heads_where_the_configuration_has_none() -> None:
    shape = model_shape(tiny_qwen2())
    assert (shape.n_layers, shape.n_heads, shape.head_dim) == (3, 4, 8)


def test_a_head_dim_that_does_not_fit_o_proj_is_refused() -> None:
    model = tiny_llama()
    model.config.head_dim = 8
    with pytest.raises(UserInputError, match=r"has 96 numbers.* 8 heads of 8 = 64"):
        prepare(model, tiny_tokenizer())


def test_the_shape_of_a_checkpoint_is_that_of_the_loaded_model(checkpoint: Path) -> None:
    assert checkpoint_shape(checkpoint) == load_model(checkpoint, "float32", "cpu").shape


def test_a_damaged_configuration_is_reported(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(UserInputError, match=r"config\.json cannot be read"):
        checkpoint_shape(checkpoint)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="is no folder"):
        load_model(tmp_path / "absent", "float32", "cpu")


def test_everything_that_a_folder_lacks_is_listed(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"config\.json, model\.safetensors.*tokenizer"):
        load_model(tmp_path, "float32", "cpu")


def test_pickled_weights_are_not_read(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(UserInputError, match=r"missing: model\.safetensors \(other formats"):
        load_model(checkpoint, "float32", "cpu")


def test_a_missing_shard_of_the_weights_is_named(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path, max_shard_size="30KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    load_model(tmp_path, "float32", "cpu")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserInputError, match=shard.name):
        load_model(tmp_path, "float32", "cpu")


def test_a_cut_off_weights_file_is_reported_as_unreadable(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserInputError, match="cannot be read"):
        load_model(checkpoint, "float32", "cpu")


def test_weights_without_a_parameter_are_refused_rather_than_made_up(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.layers.1.self_attn.o_proj.weight"]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserInputError, match=r"lacks model\.layers\.1\.self_attn\.o_proj\.weight"):
        load_model(checkpoint, "float32", "cpu")


def test_weights_of_another_shape_are_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"head_dim": 16}))
    with pytest.raises(UserInputError, match="cannot be read"):
        load_model(checkpoint, "float32", "cpu")


def test_an_unknown_architecture_names_the_row_to_add(checkpoint: Path) -> None:
    GPT2Config().save_pretrained(checkpoint)
    with pytest.raises(UserInputError, match="Add a row 'gpt2' to FAMILIES"):
        load_model(checkpoint, "float32", "cpu")


def test_an_unknown_dtype_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserInputError, match="unknown dtype 'int8'"):
        load_model(checkpoint, "int8", "cpu")


def test_devices_resolve_by_name() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("tpu", "cuda:", "cuda:x", "cpu:1"):
        with pytest.raises(UserInputError, match="expected auto, cpu, cuda or cuda:N"):
            resolve_device(name)
    with pytest.raises(UserInputError, match="is not there"):
        resolve_device("cuda:99")


def test_the_end_token_pads_where_there_is_no_pad_token_and_the_tokenizer_stays_as_it_is() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    assert prepare(tiny_llama(), tokenizer).pad_token_id == 2
    assert tokenizer.pad_token is None


def test_a_tokenizer_without_pad_and_end_token_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(UserInputError, match="neither a pad nor an end-of-sequence token"):
        prepare(tiny_llama(), tokenizer)


def test_a_private_copy_shares_the_weights_but_no_module() -> None:
    loaded = tiny_loaded()
    copy = loaded.private_copy()
    mine, theirs = dict(loaded.model.named_parameters()), dict(copy.model.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(mine[name].data_ptr() == theirs[name].data_ptr() for name in mine)
    assert not {id(m) for m in loaded.model.modules()} & {id(m) for m in copy.model.modules()}


def test_steering_one_copy_leaves_the_other_alone() -> None:
    loaded = tiny_loaded()
    copy = loaded.private_copy()
    ids = torch.tensor([[1, 9, 12, 30]])
    before = loaded.model(ids).logits
    with applied(copy, random_intervention(copy, "all")):
        assert torch.equal(loaded.model(ids).logits, before)
        assert not torch.allclose(copy.model(ids).logits, before)


def test_copies_steered_in_threads_at_once_give_what_each_gives_alone() -> None:
    loaded = tiny_loaded()
    ids = torch.randint(8, 60, (4, 12), generator=torch.Generator().manual_seed(0))
    found: dict[int, torch.Tensor] = {}

    def steer(seed: int) -> torch.Tensor:
        own = loaded.private_copy()
        with torch.no_grad(), applied(own, random_intervention(own, "all", seed)):
            return [own.model(ids).logits for _ in range(5)][-1]

    def work(seed: int) -> None:
        found[seed] = steer(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        torch.testing.assert_close(found[seed], steer(seed))


def test_a_model_that_is_being_steered_cannot_be_copied() -> None:
    loaded = tiny_loaded()
    with (
        applied(loaded, random_intervention(loaded, "all")),
        pytest.raises(RuntimeError, match="before it is steered"),
    ):
        loaded.private_copy()


def test_output_projections_come_in_the_order_of_the_layers() -> None:
    model = tiny_llama()
    expected = [model.get_submodule(f"model.layers.{i}.self_attn.o_proj") for i in range(3)]
    assert output_projections(model) == expected
    assert all(isinstance(p, nn.Linear) for p in expected)
