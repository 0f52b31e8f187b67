"""Tiny random models and tokenizers that tests and benchmarks run on; nothing is downloaded."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from real_tasks.models.identity import weights_fingerprint
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.steering.edits import Intervention
from real_tasks.steering.fits import layer_displacement
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.types import (
    Answer,
    BehaviourData,
    ModelShape,
    ModuleId,
    ModuleKind,
    Question,
    TokenScope,
)

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
MARKS = ("Q:", "A:", "?", ".")
WORDS = tuple(f"w{i}" for i in range(60))


def tiny_tokenizer(
    padding_side: Literal["left", "right"] = "right",
    words: tuple[str, ...] = WORDS,
    ends_with_eos: bool = False,
) -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *MARKS, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    template = "<bos> $A <eos>" if ends_with_eos else "<bos> $A"
    tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side=padding_side,
    )


def tiny_llama(seed: int = 0, n_layers: int = 3, max_positions: int = 128) -> PreTrainedModel:
    """Eight heads of 12 on a hidden size of 32: heads times head_dim is not the hidden size."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(MARKS) + len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=12,
        max_position_embeddings=max_positions,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def tiny_qwen2(seed: int = 0, sliding_window: int | None = None) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(SPECIAL) + len(MARKS) + len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        use_sliding_window=sliding_window is not None,
        sliding_window=sliding_window,
        max_window_layers=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Qwen2ForCausalLM(config)


_COMMON: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(MARKS) + len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Windows of 7 cut most texts of these tests; heads of 12 do not add up to the hidden size.
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
_GEMMA3: dict[str, Any] = {
    "head_dim": 12,
    "query_pre_attn_scalar": 12,
    "sliding_window": 7,
    "layer_types": _SLIDING,
    "final_logit_softcapping": 3.0,
}
_MOE: dict[str, Any] = {
    "num_experts": 3,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "mlp_only_layers": [0],
}
_OWN: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, "head_dim": 12, "sliding_window": 7, "layer_types": _SLIDING},
    "gemma": {"head_dim": 12},
    "gemma2": {**_GEMMA3, "attn_logit_softcapping": 2.0},
    "gemma3": {},
    "gemma3_text": _GEMMA3,
    "glm": {"head_dim": 12, "attention_bias": True},
    "glm4": {"head_dim": 12},
    "gpt2": {"tie_word_embeddings": True},
    "gpt_neox": {"rotary_pct": 0.5},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2},
    "llama": {"head_dim": 12, "attention_bias": True},
    "mistral": {"head_dim": 12, "sliding_window": 7},
    "ministral": {"head_dim": 12, "sliding_window": 7, "layer_types": _SLIDING},
    # All experts are used: which of them are would depend on the rounding.
    "mixtral": {"num_local_experts": 3, "num_experts_per_tok": 3},
    "olmo": {"clip_qkv": 3.0},
    "olmo2": {},
    "olmo3": {"sliding_window": 7, "layer_types": _SLIDING},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {"sliding_window": 7},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "qwen2_moe": _MOE,
    "qwen3": {"head_dim": 12, "tie_word_embeddings": True},
    "qwen3_moe": {**_MOE, "head_dim": 12},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "stablelm": {"use_parallel_residual": True, "qk_layernorm": True},
    "starcoder2": {},
}
TINY_FAMILIES = tuple(_OWN)


def tiny_config(name: str, **changes: Any) -> PreTrainedConfig:
    """The configuration of a tiny model of a family, with what is special about it."""
    own = {**_COMMON, **_OWN[name], **changes}
    if name != "gemma3":
        return AutoConfig.for_model(name, **own)
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    text = tiny_config("gemma3_text", **changes)
    return AutoConfig.for_model(
        name, text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4
    )


def tiny_family(
    name: str, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> PreTrainedModel:
    """A tiny random model of a family; its biases and norms are drawn as well, so that they count.

    The weights are the same in every dtype but for rounding.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(name, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval().to(dtype)


def tiny_loaded(
    seed: int = 0, padding_side: Literal["left", "right"] = "right", **tokenizer: bool
) -> LoadedModel:
    return prepare(tiny_llama(seed), tiny_tokenizer(padding_side, **tokenizer))


def random_texts(n: int, shortest: int = 2, longest: int = 20, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    lengths = [draw.randint(shortest, longest) for _ in range(n)]
    return [" ".join(draw.choice(WORDS) for _ in range(length)) for length in lengths]


def random_data(n_questions: int = 6, seed: int = 0) -> BehaviourData:
    """Questions of 2 to 8 words with 3 to 5 answers of 1 to 6 words, and some neutral texts."""
    draw = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(low, high)))

    questions = []
    for q in range(n_questions):
        labels = [1, 0, *draw.choices((0, 1), k=draw.randint(1, 3))]
        answers = [Answer(f"q{q}a{i}", f"{words(1, 6)} .", label) for i, label in enumerate(labels)]
        answers[0] = replace(answers[0], is_best=True)
        questions.append(Question(f"q{q}", f"{words(2, 8)} ?", "any", tuple(answers)))
    neutral = tuple(random_texts(5, seed=seed + 1))
    return BehaviourData("random", tuple(questions), neutral)


def vectors_of(intervention: Intervention, shape: ModelShape) -> dict[int, Tensor]:
    """By layer, what an intervention that only adds, and to one kind of part, adds."""
    found: dict[int, Tensor] = {}
    for edit in intervention.edits:
        for layer in edit.layers:
            vector = layer_displacement(edit.at(layer), intervention.strength, shape)
            found[layer] = found.get(layer, 0) + vector
    return found


def random_intervention(
    loaded: LoadedModel,
    scope: TokenScope,
    seed: int = 0,
    scale: float = 2.0,
    kind: ModuleKind = "head",
) -> Intervention:
    generator = torch.Generator().manual_seed(seed)
    width = loaded.shape.modules_per_layer(kind) * loaded.shape.width(kind)
    steered = {
        layer: scale * torch.randn(width, generator=generator)
        for layer in range(0, loaded.shape.n_layers, 2)
    }
    return Intervention.adding(steered, scope, kind)


def pushing(
    loaded: LoadedModel, modules: Sequence[ModuleId], directions: Tensor, alpha: float
) -> SteeringSpec:
    """The spec of a model that pushes modules along directions, at all positions, equally far."""
    return SteeringSpec.adding(
        modules=modules,
        directions=directions,
        sigmas=torch.ones(len(modules)),
        strengths=torch.ones(len(modules)),
        token_scope="all",
        alpha=alpha,
        model="tiny",
        model_digest="sha256:x",
        shape=loaded.shape,
        weights=weights_fingerprint(loaded.model),
    )
