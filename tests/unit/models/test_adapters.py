import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from real_tasks.export.bake import bake
from real_tasks.models.checking import check_model
from real_tasks.models.hub import local_checkpoint
from real_tasks.models.identity import checkpoint_content
from real_tasks.models.loading import load_model
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.models.test_hub import COMMIT, NAME, Cache, cache  # noqa: F401 (a fixture)
from tests.unit.tiny_models import random_intervention, tiny_family, tiny_llama, tiny_tokenizer

peft: Any = pytest.importorskip("peft")

CPU = ExecutionConfig(device="cpu")
IDS = torch.tensor([[1, 9, 12, 30]])
ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"
COMPANIONS = ("config.json", "model.safetensors", "generation_config.json")
TARGETS = ["q_proj", "o_proj", "down_proj"]


def write_base(folder: Path, model: PreTrainedModel | None = None) -> Path:
    (model or tiny_llama()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_adapter(
    folder: Path, base: str, model: PreTrainedModel | None = None, **options: Any
) -> Path:
    """A random adapter; peft begins with one that does nothing."""
    torch.manual_seed(1)
    given = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"}
    wrapped = peft.get_peft_model(model or tiny_llama(), peft.LoraConfig(**(given | options)))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                known = 0.0 if ".lora_A" in name or ".lora_B" in name else 1.0
                parameter.copy_(known * parameter + 0.2 * torch.randn_like(parameter))
    wrapped.save_pretrained(folder)
    change(folder, base_model_name_or_path=base)
    return folder


def change(folder: Path, **changes: Any) -> None:
    given = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(given | changes))


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A whole checkpoint with an adapter in its folder."""
    return write_adapter(write_base(tmp_path / "both"), "elsewhere")


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """An adapter in a folder of its own, beside that of its model."""
    write_base(tmp_path / "base")
    return write_adapter(tmp_path / "adapter", str(tmp_path / "base"))


def merged_by_hand(folder: Path, scale: float = 2.0) -> torch.Tensor:
    """Logits of the base with ``scale * B A`` added to every weight that the adapter changes."""
    model, adapter = tiny_llama().eval(), load_file(folder / ADAPTER)
    with torch.no_grad():
        for name in adapter:
            if ".lora_A." in name:
                module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                up = adapter[name.replace("lora_A", "lora_B")]
                for row in range(up.shape[0]):
                    added = sum(up[row, r] * adapter[name][r] for r in range(up.shape[1]))
                    model.get_parameter(f"{module}.weight")[row] += scale * added
        return model(IDS).logits


def test_an_adapter_beside_the_weights_is_merged_into_them(beside: Path) -> None:
    check_model(ModelConfig(path=str(beside)))
    loaded = load_model(beside, execution=CPU)
    torch.testing.assert_close(loaded.model(IDS).logits, merged_by_hand(beside))
    assert not torch.allclose(loaded.model(IDS).logits, tiny_llama().eval()(IDS).logits)
    assert not any("lora" in name for name, _ in loaded.model.named_modules())


def test_merged_weights_say_what_peft_says_unmerged(beside: Path, alone: Path) -> None:
    for folder in (beside, alone):
        unmerged = peft.PeftModel.from_pretrained(tiny_llama(), str(folder)).eval()
        found = load_model(folder, execution=CPU).model(IDS).logits
        torch.testing.assert_close(found, unmerged(IDS).logits)


@pytest.mark.parametrize("named", ["absolute", "beside", "../base", "from the current folder"])
def test_an_adapter_alone_finds_its_model(
    alone: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named == "beside":
        shutil.move(alone.parent / "base", alone / "base")
        change(alone, base_model_name_or_path="base")
    elif named == "from the current folder":
        monkeypatch.chdir(alone.parent)
        change(alone, base_model_name_or_path="base")
    elif named != "absolute":
        change(alone, base_model_name_or_path=named)
    check_model(ModelConfig(path=str(alone)))
    found = load_model(alone, execution=CPU).model(IDS).logits
    torch.testing.assert_close(found, merged_by_hand(alone))


def test_modules_that_were_trained_whole_take_their_own_weights(tmp_path: Path) -> None:
    folder = write_adapter(write_base(tmp_path / "m"), "m", modules_to_save=["lm_head"])
    loaded = load_model(folder, execution=CPU)
    own = load_file(folder / ADAPTER)["base_model.model.lm_head.weight"]
    torch.testing.assert_close(loaded.lm_head.weight, own)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "DoRA": ("llama", {"use_dora": True}),
    "rank-stabilised": ("llama", {"use_rslora": True}),
    "both": ("llama", {"use_dora": True, "use_rslora": True}),
    "ranks and alphas by module": (
        "llama",
        {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"down_proj": 32}},
    ),
    "some layers": ("llama", {"layers_to_transform": [1]}),
    "biases trained": ("llama", {"bias": "all"}),
    "norms trained whole": ("llama", {"modules_to_save": ["input_layernorm"]}),
    "single tokens": ("qwen3", {"trainable_token_indices": {"embed_tokens": [3, 4]}}),
    "weights transposed": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "weights transposed, DoRA": ("gpt2", {"target_modules": ["c_attn"], "use_dora": True}),
    "one of projections in one": ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens"]}),
    "embeddings, tied": ("qwen3", {"target_modules": ["embed_tokens"]}),
    "a head, tied": ("qwen3", {"target_modules": ["lm_head"]}),
    "a tied pair, each its own": ("qwen3", {"target_modules": ["embed_tokens", "lm_head"]}),
    "a tied pair, kept one": (
        "qwen3",
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "embeddings whole, tied": ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["wte"]}),
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_every_kind_of_lora_says_merged_what_peft_says_of_it_unmerged(
    kind: str, tmp_path: Path
) -> None:
    family, options = VARIANTS[kind]
    write_base(tmp_path / "base", tiny_family(family))
    folder = write_adapter(tmp_path / "adapter", "../base", tiny_family(family), **options)
    unmerged = peft.PeftModel.from_pretrained(tiny_family(family), str(folder)).eval()
    check_model(ModelConfig(path=str(folder)))
    loaded = load_model(folder, execution=CPU)
    torch.testing.assert_close(loaded.model(IDS).logits, unmerged(IDS).logits, atol=1e-4, rtol=1e-4)
    loaded.model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(again(IDS).logits, loaded.model(IDS).logits)


def test_an_adapter_of_the_hub_finds_its_model_there(cache: Cache, tmp_path: Path) -> None:  # noqa: F811
    cache.add(COMMIT, ("main",))
    cache.add(COMMIT, ("main",), name="somebody/tuned", seed=5)
    folder = cache.snapshot(name="somebody/tuned")
    for file in folder.iterdir():
        file.unlink()
    for file in write_adapter(tmp_path / "written", NAME).iterdir():
        blob = cache.repository("somebody/tuned") / "blobs" / file.name
        shutil.move(file, blob)
        (folder / file.name).symlink_to(blob)
    options = ModelConfig(path="somebody/tuned")
    check_model(options)
    found = load_model(local_checkpoint(options.path, None), options, CPU).model(IDS).logits
    torch.testing.assert_close(found, merged_by_hand(folder))
    shutil.rmtree(cache.repository(NAME))
    with pytest.raises(UserInputError, match=f"the model of the adapter .*hf download {NAME}"):
        check_model(options)


def test_of_several_adapters_each_folder_is_one(alone: Path) -> None:
    write_adapter(alone / "second", "../../base", use_rslora=True)
    for folder, scale in ((alone, 2.0), (alone / "second", 4.0)):
        found = load_model(folder, execution=CPU).model(IDS).logits
        torch.testing.assert_close(found, merged_by_hand(folder, scale))


def test_a_module_that_the_file_leaves_out_stays_as_it_is_and_half_of_one_is_refused(
    beside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = load_file(beside / ADAPTER)
    left = {name: tensor for name, tensor in weights.items() if "layers.1." not in name}
    save_file(left, beside / ADAPTER)
    loaded = load_model(beside, execution=CPU)
    torch.testing.assert_close(loaded.model(IDS).logits, merged_by_hand(beside))
    assert any("no weights for 3 of the modules" in message for message in caplog.messages)
    left.pop(next(name for name in left if "lora_B" in name))
    save_file(left, beside / ADAPTER)
    with pytest.raises(UserInputError, match="does not fit its model .*counterpart"):
        load_model(beside, execution=CPU)


def test_without_peft_the_folder_is_refused(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    for look in (lambda: check_model(ModelConfig(path=str(beside))), lambda: load_model(beside)):
        with pytest.raises(UserInputError, match=r"pip install real-steering\[peft\]"):
            look()


def pickled(folder: Path) -> None:
    (folder / ADAPTER).rename(folder / "adapter_model.bin")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "prompt tuning": (lambda f: change(f, peft_type="PROMPT_TUNING"), "kind 'PROMPT_TUNING'"),
    "prefix tuning": (lambda f: change(f, peft_type="PREFIX_TUNING"), "kind 'PREFIX_TUNING'"),
    "an unknown kind": (lambda f: change(f, peft_type="NEW"), "kind 'NEW'"),
    "no kind": (lambda f: (f / CONFIG).write_text("{}"), "kind None"),
    "a list": (lambda f: (f / CONFIG).write_text("[]"), "holds a list"),
    "damaged": (lambda f: (f / CONFIG).write_text("{"), "cannot be read"),
    "an activated one": (lambda f: change(f, alora_invocation_tokens=[1]), "alora_invocation"),
    "of a newer peft": (lambda f: change(f, use_xora=True), "use_xora, which the peft .*newer"),
    "replicated layers": (lambda f: change(f, layer_replication=[[0, 2]]), "layer_replication"),
    "pickled": (pickled, "lacks adapter_model.safetensors"),
    "a pointer": (
        lambda f: (f / ADAPTER).write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git-lfs pointer",
    ),
    "without its configuration": (lambda f: (f / CONFIG).unlink(), "without its adapter_config"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_adapter_that_cannot_be_merged_is_refused_before_any_weight_is_read(
    kind: str, beside: Path
) -> None:
    damage, said = BROKEN[kind]
    damage(beside)
    with pytest.raises(UserInputError, match=said):
        check_model(ModelConfig(path=str(beside)))


@pytest.mark.parametrize(
    ("base", "said"),
    [(None, "does not name the adapter's model"), ("no/such/folder", "the model of the adapter")],
)
def test_an_adapter_alone_without_its_model_is_refused(alone: Path, base: Any, said: str) -> None:
    change(alone, base_model_name_or_path=base)
    with pytest.raises(UserInputError, match=said):
        check_model(ModelConfig(path=str(alone)))


def more_layers(folder: Path) -> None:
    weights = load_file(folder / ADAPTER)
    more = {name.replace("layers.2", "layers.7"): tensor for name, tensor in weights.items()}
    save_file(more, folder / ADAPTER)


def other_ranks(folder: Path) -> None:
    change(folder, r=8)


def half_of_a_module(folder: Path) -> None:
    weights = load_file(folder / ADAPTER)
    weights.pop(next(name for name in weights if "lora_B" in name))
    save_file(weights, folder / ADAPTER)


OTHERS: dict[str, Callable[[Path], object]] = {
    "weights of more layers": more_layers,
    "other ranks": other_ranks,
    "half of a module": half_of_a_module,
    "modules that are not there": lambda f: change(f, target_modules=["c_attn"]),
    "a model of another width": lambda f: tiny_family("llama").save_pretrained(f),
    "a model of another architecture": lambda f: tiny_family("gpt2").save_pretrained(f),
    "biases of modules without": lambda f: write_adapter(f, "elsewhere", lora_bias=True),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_an_adapter_that_does_not_fit_its_model_is_refused_by_headers_and_when_loaded(
    kind: str, beside: Path
) -> None:
    OTHERS[kind](beside)
    for look in (
        lambda: check_model(ModelConfig(path=str(beside))),
        lambda: load_model(beside, execution=CPU),
    ):
        with pytest.raises(UserInputError, match="does not fit its model"):
            look()


@pytest.mark.parametrize("name", [f"adapter/{ADAPTER}", "base/model.safetensors"])
def test_identity_covers_the_adapter_and_its_model(alone: Path, name: str) -> None:
    before = checkpoint_content(alone, False, {})
    file = alone.parent / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert checkpoint_content(alone, False, {}) != before
    assert {"adapter_config.json", ADAPTER, "base/model.safetensors"} <= before.keys()


def test_a_baked_checkpoint_holds_the_merged_weights(alone: Path, tmp_path: Path) -> None:
    loaded = load_model(alone, execution=CPU)
    steering = random_intervention(loaded, "all")
    (tmp_path / "baked").mkdir()
    bake(loaded, steering, alone, tmp_path / "baked")
    assert not list((tmp_path / "baked").glob("adapter*"))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    with applied(loaded, steering):
        expected = loaded.model(IDS).logits
    torch.testing.assert_close(plain(IDS).logits, expected, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "baked")("w0")["input_ids"] == [1, 8]
