import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import LlamaConfig, OPTConfig
from transformers.pytorch_utils import Conv1D

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.models.chat import ChatFormat
from real_tasks.models.checking import check_model, checkpoint_config
from real_tasks.models.devices import resolve_device
from real_tasks.models.families import configured_shape, family_of
from real_tasks.models.loading import LoadedModel, load_model, prepare
from real_tasks.models.places import model_shape, output_projections, projection_weight
from real_tasks.models.weight_checks import check_stored_finite
from real_tasks.reading.activations import activations_at_last_token
from real_tasks.reading.batches import encode
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.config import ExecutionConfig, KnownShape, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import (
    TINY_FAMILIES,
    random_data,
    random_intervention,
    random_texts,
    tiny_family,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)

CPU = ExecutionConfig(device="cpu")
IDS = torch.tensor([[1, 9, 12, 30]])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_loads_for_reading_only_and_gives_the_same_logits(checkpoint: Path) -> None:
    loaded = load_model(checkpoint, execution=CPU)
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
    loaded = load_model(str(checkpoint), ModelConfig(dtype=dtype), CPU)
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
    loaded = load_model(checkpoint, execution=CPU)
    assert configured_shape(checkpoint_config(checkpoint)) == loaded.shape


def test_a_damaged_configuration_is_reported(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(UserInputError, match=r"config\.json cannot be read"):
        configured_shape(checkpoint_config(checkpoint))


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="is no folder"):
        load_model(tmp_path / "absent", execution=CPU)


def test_everything_that_a_folder_lacks_is_listed(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"config\.json, model\.safetensors.*tokenizer"):
        load_model(tmp_path, execution=CPU)


def test_pickled_weights_are_not_read(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(UserInputError, match=r"missing: model\.safetensors \(other formats"):
        load_model(checkpoint, execution=CPU)


def test_a_missing_shard_of_the_weights_is_named(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path, max_shard_size="30KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    load_model(tmp_path, execution=CPU)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserInputError, match=shard.name):
        load_model(tmp_path, execution=CPU)


def test_a_cut_off_weights_file_is_reported_as_unreadable(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserInputError, match="cannot be read"):
        load_model(checkpoint, execution=CPU)


def test_weights_without_a_parameter_are_refused_rather_than_made_up(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.layers.1.self_attn.o_proj.weight"]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserInputError, match=r"lacks model\.layers\.1\.self_attn\.o_proj\.weight"):
        load_model(checkpoint, execution=CPU)


def test_weights_of_another_shape_are_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"head_dim": 16}))
    with pytest.raises(UserInputError, match=r"does not fit its config\.json"):
        load_model(checkpoint, execution=CPU)


def test_an_unknown_architecture_names_the_row_to_add(checkpoint: Path) -> None:
    OPTConfig().save_pretrained(checkpoint)
    with pytest.raises(UserInputError, match=r"'opt' \(OPTConfig\).*Add a row 'opt' to FAMILIES"):
        load_model(checkpoint, execution=CPU)


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


def test_without_either_any_token_pads_and_results_are_the_same() -> None:
    bare = tiny_tokenizer()
    bare.pad_token = bare.eos_token = bare.bos_token = None
    found, expected = prepare(tiny_llama(), bare), tiny_loaded()
    assert (found.pad_token_id, expected.pad_token_id) == (bare.unk_token_id, 0)
    data = random_data(4)
    for loaded in (found, expected):
        loaded.model.generation_config.eos_token_id = None
    texts = random_texts(6)
    torch.testing.assert_close(
        activations_at_last_token(found, texts, 1000),
        activations_at_last_token(expected, texts, 1000),
    )
    scores = [
        score_choices(m, encode_choices(m, data, range(4), 500), None) for m in (found, expected)
    ]
    assert sum(scores[0], []) == pytest.approx(sum(scores[1], []))
    answers = [generate_answers(m, data, range(4), None, 5, 1000) for m in (found, expected)]
    assert answers[0] == answers[1]


def test_a_pad_token_that_was_added_without_an_embedding_changes_no_number(
    checkpoint: Path,
) -> None:
    expected = numbers_of(load_model(checkpoint, execution=CPU))
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(checkpoint)
    check_model(ModelConfig(path=str(checkpoint)))
    loaded = load_model(checkpoint, execution=CPU)
    assert loaded.tokenizer.pad_token_id == loaded.n_tokens
    for found, want in zip(numbers_of(loaded), expected, strict=True):
        torch.testing.assert_close(found, want)


def numbers_of(loaded: LoadedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations and log-likelihoods of texts of several lengths, in batches of several."""
    data = random_data(6)
    scores = score_choices(loaded, encode_choices(loaded, data, range(6), 200), None)
    flat = [score for one in scores for score in one]
    return activations_at_last_token(loaded, random_texts(8), 100), torch.tensor(flat)


def test_added_tokens_without_embeddings_are_refused_where_a_text_holds_them(
    checkpoint: Path,
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<picture>", "<sound>"], special_tokens=True)
    tokenizer.save_pretrained(checkpoint)
    check_model(ModelConfig(path=str(checkpoint)))
    loaded = load_model(checkpoint, execution=CPU)
    assert encode(loaded, ["w1 w2"]) == encode(prepare(tiny_llama(), tiny_tokenizer()), ["w1 w2"])
    with pytest.raises(UserInputError, match=r"no embedding for.*'<picture>' \(68\)"):
        encode(loaded, ["w1 w2", "w1 <picture>"])


def test_a_beginning_of_texts_without_an_embedding_is_refused_at_once(checkpoint: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", len(tokenizer) - 1)]
    )
    tokenizer.save_pretrained(checkpoint)
    for read in (lambda: load_model(checkpoint), lambda: check_model(options(checkpoint))):
        with pytest.raises(UserInputError, match=r"1 tokens beyond .* 68 embeddings .*'<s>'"):
            read()


def options(checkpoint: Path) -> ModelConfig:
    return ModelConfig(path=str(checkpoint))


def test_a_tokenizer_with_no_special_token_at_all_pads_with_its_first() -> None:
    bare = tiny_tokenizer()
    bare.pad_token = bare.eos_token = bare.bos_token = bare.unk_token = None
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    loaded = prepare(tiny_llama(), bare)
    assert loaded.pad_token_id == 0
    assert encode(loaded, ["w0 w1"]) == [[8, 9]]
    texts = random_texts(6)
    together = activations_at_last_token(loaded, texts, 1000)
    alone = [activations_at_last_token(loaded, [text], 1000) for text in texts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


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


def test_a_conv1d_and_a_linear_layer_give_weights_of_one_orientation() -> None:
    x = torch.randn(5, 6)
    for projection in (Conv1D(4, 6), nn.Linear(6, 4)):
        bias = projection.get_parameter("bias")
        assert projection_weight(projection).shape == (4, 6)
        torch.testing.assert_close(projection(x), x @ projection_weight(projection).T + bias)


def test_an_architecture_is_known_by_its_class_and_not_by_its_name() -> None:
    class LlamaLikeConfig(LlamaConfig):
        model_type = "my_llama"

    class ImpostorConfig(OPTConfig):
        model_type = "llama"

    with pytest.raises(UserInputError, match="Add a row 'my_llama' to FAMILIES"):
        family_of(LlamaLikeConfig())
    with pytest.raises(UserInputError, match="calls itself 'llama' but is a .*ImpostorConfig"):
        family_of(ImpostorConfig())


def test_a_part_that_is_not_where_the_table_says_is_named() -> None:
    model = tiny_llama()
    del model.model.layers[1].self_attn.o_proj
    with pytest.raises(UserInputError, match=r"LlamaDecoderLayer has no 'self_attn\.o_proj'"):
        prepare(model, tiny_tokenizer())


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma2", "gemma3", "phi3"])
def test_checkpoints_of_other_families_load_and_give_the_same_logits(
    name: str, tmp_path: Path
) -> None:
    model = tiny_family(name)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(tmp_path, execution=CPU)
    torch.testing.assert_close(loaded.model(IDS).logits, model(IDS).logits)
    assert configured_shape(checkpoint_config(tmp_path)) == loaded.shape


def test_gpt_2_as_it_was_published_without_the_head_s_prefix_loads(tmp_path: Path) -> None:
    model = tiny_family("gpt2")
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    bare = {k.removeprefix("transformer."): v for k, v in weights.items() if k != "lm_head.weight"}
    save_file(bare, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_model(tmp_path, execution=CPU)
    torch.testing.assert_close(loaded.model(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text"])
def test_capped_attention_scores_need_eager_attention_and_the_log_says_so(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_family(name, attn_logit_softcapping=2.0).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        loaded = load_model(tmp_path, execution=CPU)
    assert loaded.model.config._attn_implementation == "eager"
    assert any("'eager' instead of 'sdpa'" in message for message in caplog.messages)
    assert loaded.model(IDS).logits.isfinite().all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_computed_as_asked_with_the_same_result(
    checkpoint: Path, attention: Any
) -> None:
    loaded = load_model(checkpoint, ModelConfig(attn_implementation=attention), CPU)
    assert loaded.model.config._attn_implementation == attention
    expected = tiny_llama().eval()(IDS).logits
    torch.testing.assert_close(loaded.model(IDS).logits, expected, atol=1e-5, rtol=1e-4)


def test_flash_attention_that_is_not_installed_is_named(checkpoint: Path) -> None:
    options = ModelConfig(attn_implementation="flash_attention_2")
    with pytest.raises(UserInputError, match="pip install flash-attn, or choose sdpa"):
        load_model(checkpoint, options, CPU)


REMOTE = """
from transformers import LlamaConfig

class OwnConfig(LlamaConfig):
    model_type = "own"
"""


def test_code_of_the_checkpoint_s_own_runs_only_where_it_is_trusted(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = str(checkpoint / "copied")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", copied)
    monkeypatch.setattr(sys, "path", [*sys.path])
    described = json.loads((checkpoint / "config.json").read_text())
    described |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (checkpoint / "config.json").write_text(json.dumps(described))
    (checkpoint / "own.py").write_text(f"{REMOTE}\nraise RuntimeError('it ran')\n")
    with pytest.raises(UserInputError, match=r"set model\.trust_remote_code to true"):
        load_model(checkpoint, execution=CPU)
    with pytest.raises(UserInputError, match="it ran"):
        load_model(checkpoint, ModelConfig(trust_remote_code=True), CPU)
    (checkpoint / "own.py").write_text(REMOTE)
    with pytest.raises(UserInputError, match="Add a row 'own' to FAMILIES"):
        load_model(checkpoint, ModelConfig(trust_remote_code=True), CPU)


def test_the_shape_that_was_planned_with_is_checked(checkpoint: Path) -> None:
    planned = KnownShape(n_layers=3, n_heads=8, head_dim=12, d_model=32)
    assert load_model(checkpoint, ModelConfig(shape=planned), CPU).shape.head_dim == 12
    other = ModelConfig(shape=planned.model_copy(update={"head_dim": 4}))
    with pytest.raises(UserInputError, match=r"says .*head_dim=4.* has .*head_dim=12"):
        load_model(checkpoint, other, CPU)


def test_a_chat_format_needs_a_chat_template(checkpoint: Path) -> None:
    options = ModelConfig(chat_template=True, system_prompt="w7 .")
    with pytest.raises(UserInputError, match="the tokenizer has no chat template"):
        load_model(checkpoint, options, CPU)
    assert load_model(checkpoint, execution=CPU).chat is None
    (checkpoint / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    assert load_model(checkpoint, options, CPU).chat == ChatFormat("w7 .")


def spread(folder: Path, device_map: Any, **kwargs: Any) -> LoadedModel:
    """A model with accelerate's hooks on it; the machine has no second device to load to."""
    accelerate = pytest.importorskip("accelerate")
    model = load_model(folder, execution=CPU).model
    accelerate.dispatch_model(model, device_map, force_hooks=True, **kwargs)
    return prepare(model, tiny_tokenizer(), "cpu")


def test_a_device_map_loads_the_model_by_accelerate(checkpoint: Path) -> None:
    pytest.importorskip("accelerate")
    expected = load_model(checkpoint, execution=CPU)
    loaded = load_model(checkpoint, execution=ExecutionConfig(device="cpu", device_map="auto"))
    assert loaded.device == loaded.model.get_input_embeddings().weight.device
    found = loaded.model(IDS.to(loaded.device)).logits.cpu()
    torch.testing.assert_close(found, expected.model(IDS).logits, atol=1e-4, rtol=1e-3)


def test_a_device_map_without_accelerate_says_what_to_install(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    execution = ExecutionConfig(device="cpu", device_map="auto")
    with pytest.raises(UserInputError, match=r"pip install real-steering\[large\]"):
        load_model(checkpoint, execution=execution)


@pytest.mark.parametrize("offloaded", [False, True])
@torch.no_grad()
def test_copies_of_a_spread_model_are_steered_alone_and_share_its_weights(
    tmp_path: Path, offloaded: bool
) -> None:
    tiny_family("qwen3").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    plain = load_model(tmp_path, execution=CPU)
    first = "disk" if offloaded else "cpu"
    parts = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu"}
    parts |= {"model.norm": "cpu", "model.layers.0": first}
    parts |= {"model.layers.1": "cpu", "model.layers.2": "cpu"}
    loaded = spread(tmp_path, parts, offload_dir=str(tmp_path / "offload"))
    copy = loaded.private_copy()
    assert not {id(m) for m in loaded.model.modules()} & {id(m) for m in copy.model.modules()}
    mine, theirs = dict(loaded.model.named_parameters()), dict(copy.model.named_parameters())
    assert all(mine[name] is theirs[name] for name in mine)
    iv = random_intervention(plain, "all")
    texts = random_texts(4)
    before = activations_at_last_token(loaded, texts, 100)
    torch.testing.assert_close(before, activations_at_last_token(plain, texts, 100))
    with applied(plain, iv):
        expected = plain.model(IDS).logits
    with applied(copy, iv):
        torch.testing.assert_close(copy.model(IDS).logits, expected)
        torch.testing.assert_close(loaded.model(IDS).logits, plain.model(IDS).logits)


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_the_headers_of_every_family_s_checkpoint_are_found_right(
    name: str, tmp_path: Path
) -> None:
    model = tiny_family(name)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert check_model(ModelConfig(path=str(tmp_path)))[0] == model_shape(model)
    load_model(tmp_path, execution=CPU)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(n for n in sorted(weights) if "layers.1." in n or "h.1." in n)
    save_file({n: t for n, t in weights.items() if n != name}, tmp_path / "model.safetensors")
    with pytest.raises(UserInputError, match=r"lacks (.*\.1\.|weights of its experts)"):
        check_model(ModelConfig(path=str(tmp_path)))


def test_tables_that_old_versions_stored_are_no_weights(checkpoint: Path) -> None:
    expected = load_model(checkpoint, execution=CPU).model(IDS).logits
    weights = load_file(checkpoint / "model.safetensors")
    for layer in range(3):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
        weights[f"model.layers.{layer}.self_attn.rotary_emb.cos_cached"] = torch.ones(1, 1, 9, 12)
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    check_model(ModelConfig(path=str(checkpoint)))
    assert torch.equal(load_model(checkpoint, execution=CPU).model(IDS).logits, expected)


def test_a_bias_that_the_configuration_has_a_place_for_is_added_to_o_proj_s_output(
    checkpoint: Path,
) -> None:
    described = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(described | {"attention_bias": True}))
    weights = load_file(checkpoint / "model.safetensors")
    for layer in range(3):
        for part, width in (("q", 96), ("k", 48), ("v", 48), ("o", 32)):
            bias = torch.randn(width) if part == "o" else torch.zeros(width)
            weights[f"model.layers.{layer}.self_attn.{part}_proj.bias"] = bias
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    loaded = load_model(checkpoint, execution=CPU)
    seen: list[Any] = []
    o_proj = output_projections(loaded.model)[0]
    o_proj.register_forward_hook(lambda _module, given, out: seen.extend((given[0], out)))
    loaded.model(IDS)
    o = "model.layers.0.self_attn.o_proj"
    by_hand = seen[0] @ weights[f"{o}.weight"].T + weights[f"{o}.bias"]
    torch.testing.assert_close(seen[1], by_hand)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_are_not_finite_are_named(checkpoint: Path, value: float) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 4] = value
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    said = rf"1 weights hold NaN or infinity: {name}"
    half = ModelConfig(path=str(checkpoint), dtype="float16")
    with pytest.raises(UserInputError, match=said):
        load_model(checkpoint, half, CPU)
    with pytest.raises(UserInputError, match=said):
        check_stored_finite(checkpoint.iterdir(), torch.float16)
    if value == 1e6:  # too large for float16 alone
        load_model(checkpoint, execution=CPU)
        check_stored_finite(checkpoint.iterdir(), torch.float32)


def test_a_head_of_its_own_is_no_tied_one(tmp_path: Path) -> None:
    tiny_family("qwen3").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    load_model(tmp_path, execution=CPU)
    weights["lm_head.weight"] *= 2
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserInputError, match="says tie_word_embeddings, but .* lm_head"):
        load_model(tmp_path, execution=CPU)
