"""Baked checkpoints, loaded by plain transformers in a process without this project."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    Qwen2Tokenizer,
)

from real_tasks.export import bake as baking
from real_tasks.export.bake import bake
from real_tasks.export.routes import ROUTES
from real_tasks.models.families import FAMILIES
from real_tasks.models.loading import prepare
from real_tasks.models.places import sites
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleKind
from tests.unit.tiny_models import TINY_FAMILIES, tiny_family, tiny_tokenizer

# Longer than the sliding windows of the tiny models.
IDS = torch.randint(4, 68, (2, 24), generator=torch.Generator().manual_seed(1))

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.1] * 4,
    "long_factor": [2.0] * 4,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral without a window": ("mistral", {"sliding_window": None}),
    "mistral with a window that never cuts": ("mistral", {"sliding_window": 128}),
    "qwen2 without a window, tied": (
        "qwen2",
        {"use_sliding_window": False, "tie_word_embeddings": True},
    ),
    "qwen2 with a width that its heads do not divide": (
        "qwen2",
        {"use_sliding_window": False, "hidden_size": 30, "head_dim": 8},
    ),
    "phi3 without a window": ("phi3", {"sliding_window": None}),
    "phi3 with long rope": (
        "phi3",
        {
            "sliding_window": None,
            "rope_parameters": LONGROPE,
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 16,
        },
    ),
    "llama with biases, tied": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "llama without biases": ("llama", {"attention_bias": False}),
    "neox without biases, sequential": (
        "gpt_neox",
        {"attention_bias": False, "use_parallel_residual": False},
    ),
    "starcoder2 without biases": ("starcoder2", {"use_bias": False}),
}
FAMILY_CASES = {name: (name, {}) for name in ROUTES} | VARIANTS
KINDS: tuple[ModuleKind, ...] = ("head", "mlp", "layer")
CASES: list[tuple[str, ModuleKind]] = [
    (case, kind)
    for case, (family, _) in FAMILY_CASES.items()
    for kind in KINDS
    if ROUTES[family].bias(kind)
]

IN_A_FRESH_PROCESS = """
import json, sys, warnings
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
root = Path(sys.argv[1])
ids = torch.tensor(json.loads((root / "ids.json").read_text()))
logits, unclean = {}, {}
for folder in sorted(p for p in root.iterdir() if p.is_dir()):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    unclean[folder.name] = [str(v) for v in info.values() if v]
    with torch.no_grad():
        logits[folder.name] = model.eval()(ids).logits.contiguous()
assert not [name for name in sys.modules if name.startswith("real_tasks")]
save_file(logits, root / "logits.safetensors")
(root / "unclean.json").write_text(json.dumps(unclean))
"""


@dataclass(frozen=True)
class Expectation:
    steered: Tensor
    plain: Tensor


def displacement_of(model: PreTrainedModel, kind: ModuleKind) -> dict[int, Tensor]:
    config = model.config.get_text_config()
    width = config.hidden_size
    if kind == "head":
        width = config.num_attention_heads * (
            getattr(config, "head_dim", None) or width // config.num_attention_heads
        )
    generator = torch.Generator().manual_seed(0)
    return {layer: torch.randn(width, generator=generator) for layer in (0, 2)}


@torch.no_grad()
def hooked_logits(
    model: PreTrainedModel, kind: ModuleKind, displacement: Mapping[int, Tensor]
) -> Tensor:
    """The steered logits by plain hooks, not by the project's interventions."""

    def before(vector: Tensor) -> Any:
        return lambda _module, args: (args[0] + vector, *args[1:])

    def after(vector: Tensor) -> Any:
        def hook(_module: Any, _args: Any, out: Any) -> Any:
            return (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector

        return hook

    handles = []
    for layer, vector in displacement.items():
        site = sites(model, kind)[layer]
        if kind == "head":
            handles.append(site.register_forward_pre_hook(before(vector)))
        else:
            handles.append(site.register_forward_hook(after(vector)))
    logits: Tensor = model(IDS).logits
    for handle in handles:
        handle.remove()
    return logits


def bake_tiny(
    model: PreTrainedModel, kind: ModuleKind, folder: Path, scope: Any = "all"
) -> baking.Baked:
    source = folder.with_name(f"{folder.name}-source")
    tiny_tokenizer().save_pretrained(source)
    folder.mkdir(exist_ok=True)
    intervention = Intervention.adding(displacement_of(model, kind), scope, kind)
    return bake(prepare(model, tiny_tokenizer()), intervention, source, folder)


@pytest.fixture(scope="module")
def baked(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Expectation], dict[str, baking.Baked]]:
    root = tmp_path_factory.mktemp("baked")
    expected, facts = {}, {}
    (root / "ids.json").write_text(json.dumps(IDS.tolist()))
    sources = tmp_path_factory.mktemp("sources")
    tiny_tokenizer().save_pretrained(sources)
    for case, kind in CASES:
        family, changes = FAMILY_CASES[case]
        model, name = tiny_family(family, **changes), f"{case} {kind}"
        displacement = displacement_of(model, kind)
        expected[name] = Expectation(
            hooked_logits(model, kind, displacement), hooked_logits(model, kind, {})
        )
        (root / name).mkdir()
        loaded = prepare(model, tiny_tokenizer())
        intervention = Intervention.adding(displacement, "all", kind)
        facts[name] = bake(loaded, intervention, sources, root / name)
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(root)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=120)
    return root, expected, facts


@pytest.mark.parametrize(("case", "kind"), CASES, ids=lambda value: str(value).replace(" ", "-"))
def test_plain_transformers_gives_the_hooked_models_logits(
    baked: Any, case: str, kind: str
) -> None:
    root, expected, _ = baked
    name = f"{case} {kind}"
    found = load_file(root / "logits.safetensors")[name]
    assert json.loads((root / "unclean.json").read_text())[name] == []
    torch.testing.assert_close(found, expected[name].steered, atol=1e-4, rtol=0)
    assert (expected[name].plain - expected[name].steered).abs().max() > 0.01


def test_every_route_belongs_to_a_known_family_with_a_tiny_checkpoint() -> None:
    assert set(ROUTES) <= set(FAMILIES)
    assert set(ROUTES) <= set(TINY_FAMILIES)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("llama head", "LlamaForCausalLM"),
        ("mistral head", "SmolLM3ForCausalLM"),
        ("mistral without a window head", "LlamaForCausalLM"),
        ("mistral with a window that never cuts head", "LlamaForCausalLM"),
        ("qwen2 head", "SmolLM3ForCausalLM"),
        ("qwen2 without a window, tied mlp", "LlamaForCausalLM"),
        ("phi3 without a window layer", "LlamaForCausalLM"),
        ("qwen3 head", "Qwen3ForCausalLM"),
        ("gpt2 mlp", "GPT2LMHeadModel"),
    ],
)
def test_a_checkpoint_is_declared_as_the_class_that_has_the_biases(
    baked: Any, name: str, architecture: str
) -> None:
    root, _, facts = baked
    assert facts[name].architecture == architecture
    config = json.loads((root / name / "config.json").read_text())
    assert config["architectures"] == [architecture]
    assert len(facts[name].biases) == 2
    # Nothing of this machine is written into the configuration.
    assert str(root.parent) not in json.dumps(config)


def test_only_long_rope_leaves_a_note(baked: Any) -> None:
    noted = {name for name, fact in baked[2].items() if fact.notes}
    assert noted == {f"phi3 with long rope {kind}" for kind in ("head", "mlp", "layer")}


def test_tied_embeddings_stay_tied(baked: Any) -> None:
    name = "llama with biases, tied head"
    weights = load_file(baked[0] / name / "model.safetensors")
    assert "lm_head.weight" not in weights
    assert json.loads((baked[0] / name / "config.json").read_text())["tie_word_embeddings"]


def test_a_biased_projection_keeps_its_own_bias_below_the_steering(tmp_path: Path) -> None:
    model = tiny_family("gpt2")
    bake_tiny(model, "head", tmp_path / "made")
    made = load_file(tmp_path / "made" / "model.safetensors")
    own = model.transformer.h[0].attn.c_proj
    displacement = displacement_of(model, "head")
    by_hand = own.bias + displacement[0] @ own.weight
    torch.testing.assert_close(made["transformer.h.0.attn.c_proj.bias"], by_hand)
    unsteered = model.transformer.h[1].attn.c_proj.bias
    torch.testing.assert_close(made["transformer.h.1.attn.c_proj.bias"], unsteered)


def test_a_large_checkpoint_is_written_in_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baking, "SHARD_SIZE", "20KB")
    model = tiny_family("llama")
    bake_tiny(model, "head", tmp_path / "made")
    assert len(list((tmp_path / "made").glob("model-*.safetensors"))) > 1
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "made").eval()
    expected = hooked_logits(model, "head", displacement_of(model, "head"))
    torch.testing.assert_close(back(IDS).logits, expected, atol=1e-4, rtol=0)


def test_biases_are_computed_in_float32_and_rounded_once(tmp_path: Path) -> None:
    model = tiny_family("llama", dtype=torch.bfloat16)
    made = bake_tiny(model, "head", tmp_path / "made")
    assert made.dtype == "bfloat16"
    weights = load_file(tmp_path / "made" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    projection = sites(model, "head")[0]
    exact = projection.weight.float() @ displacement_of(model, "head")[0] + projection.bias.float()
    found = weights["model.layers.0.self_attn.o_proj.bias"]
    assert torch.equal(found, exact.to(torch.bfloat16))


def test_tokenizer_template_and_generation_settings_come_along_unchanged(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "made"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}Q: {{ m.content }} {% endfor %}A:"
    tokenizer.save_pretrained(source)
    # As some published settings are: transformers reads them, and refuses to save them.
    settings = '{"do_sample": false, "temperature": 0.9, "eos_token_id": [2, 5]}'
    (source / "generation_config.json").write_text(settings)
    (source / "LICENSE.txt").write_text("of the base model")
    (source / "README.md").write_text("card of the base model")
    (source / "model.safetensors").write_text("the unsteered weights")
    target.mkdir()
    model = tiny_family("qwen2", use_sliding_window=False)
    intervention = Intervention.adding(displacement_of(model, "head"), "all", "head")
    bake(prepare(model, tokenizer), intervention, source, target)
    for name in ("tokenizer.json", "chat_template.jinja", "LICENSE.txt", "generation_config.json"):
        assert (target / name).read_bytes() == (source / name).read_bytes(), name
    assert not (target / "README.md").exists()
    back = AutoTokenizer.from_pretrained(target)
    assert back.chat_template == tokenizer.chat_template
    assert back("Q: w1 w2 ? A:")["input_ids"] == tokenizer("Q: w1 w2 ? A:")["input_ids"]
    assert GenerationConfig.from_pretrained(target).eos_token_id == [2, 5]


def test_a_qwen_tokenizer_cuts_texts_alike_under_llamas_architecture(tmp_path: Path) -> None:
    letters = {chr(byte): byte - 32 for byte in range(33, 90)}
    tokenizer = Qwen2Tokenizer(vocab=letters | {"<|endoftext|>": 60}, merges=[])
    source, target = tmp_path / "source", tmp_path / "made"
    tokenizer.save_pretrained(source)
    target.mkdir()
    model = tiny_family("qwen2", use_sliding_window=False)
    intervention = Intervention.adding(displacement_of(model, "head"), "all", "head")
    bake(prepare(model, tokenizer), intervention, source, target)
    text = "WHO KNOWS 12345?  NOBODY."
    assert (
        AutoTokenizer.from_pretrained(target)(text)["input_ids"] == (tokenizer(text)["input_ids"])
    )


@pytest.mark.parametrize("scope", ["generated", "last"])
def test_other_token_scopes_are_refused_with_the_other_route(tmp_path: Path, scope: str) -> None:
    with pytest.raises(UserInputError, match=f"{scope}.*some positions only.*--format spec"):
        bake_tiny(tiny_family("llama"), "head", tmp_path / "made", scope)


@pytest.mark.parametrize(
    ("family", "kind"), [("glm", "head"), ("qwen3", "mlp"), ("gemma2", "layer"), ("olmo2", "layer")]
)
def test_an_architecture_without_the_bias_is_refused_with_the_other_route(
    tmp_path: Path, family: str, kind: ModuleKind
) -> None:
    with pytest.raises(UserInputError, match=f"'{kind}'.*'{family}'.*llama.*--format spec"):
        bake_tiny(tiny_family(family), kind, tmp_path / "made")


def test_partly_rotated_heads_of_phi3_are_refused(tmp_path: Path) -> None:
    model = tiny_family(
        "phi3",
        sliding_window=None,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
        },
    )
    with pytest.raises(UserInputError, match="rotates only 0.75 of each head.*--format spec"):
        bake_tiny(model, "head", tmp_path / "made")


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    model = tiny_family("llama")
    model.config.quantization_config = {"quant_method": "awq"}
    with pytest.raises(UserInputError, match="quantised"):
        bake_tiny(model, "head", tmp_path / "made")
