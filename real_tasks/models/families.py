"""Architectures: where the parts of a causal language model lie, one row of `FAMILIES` for each.

Nothing here knows any model by name. Whoever adds a row adds a tiny checkpoint to the tests, which
then hold for it.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleId, ModuleKind

WRITING: tuple[ModuleKind, ModuleKind] = ("attention", "mlp")
"""Kinds of what blocks write to the residual stream."""


@dataclass(frozen=True)
class ModelFamily:
    """Where the parts of an architecture lie: dotted paths from the causal language model.

    Attributes:
        decoder: the model without its language-model head; its output is already normalised.
        layers: the list of decoder layers.
        o_proj: from a decoder layer, the attention's output projection. Its input is the
            concatenation of the heads, head after head.
        mlp: from a decoder layer, the feed-forward block; its output is the module ``mlp``.
        mid: from a decoder layer, the first module that reads the residual stream between attention
            and feed-forward; None where these two run side by side.
        parallel_if: field of the configuration that says whether they do.
        down_proj: from a decoder layer, the feed-forward's last projection, whose input are the
            neurons; None where experts share the work.
        post_norms: from a decoder layer, the two norms between what attention and feed-forward put
            out and the residual stream that it is added to; None where nothing is between.
        d_mlp: field of the configuration with the number of neurons; four times the width of the
            residual stream where it is None.
        final_norm: the last norm, whose output the language-model head gets.
        lm_head: from hidden states to logits.
        logits_times: field of the configuration that the logits are multiplied by.
        logits_over: field of the configuration that the logits are divided by.
        logits_cap: field of the configuration with the bound c of ``c * tanh(logits / c)``.
        sdpa: whether PyTorch's fused attention computes what the architecture asks for.
        rereads: whether a text that grows out of longrope's short frequencies is read anew, as
            transformers' ``generate`` does for some; elsewhere what was read is kept as it is.
    """

    decoder: str = "model"
    layers: str = "model.layers"
    o_proj: str = "self_attn.o_proj"
    mlp: str = "mlp"
    mid: str | None = "post_attention_layernorm"
    parallel_if: str | None = None
    down_proj: str | None = "mlp.down_proj"
    post_norms: tuple[str, str] | None = None
    d_mlp: str = "intermediate_size"
    final_norm: str = "model.norm"
    lm_head: str = "lm_head"
    logits_times: str | None = None
    logits_over: str | None = None
    logits_cap: str | None = None
    sdpa: bool = True
    rereads: bool = False


_LLAMA_LIKE = ModelFamily()
_COHERE = ModelFamily(mid=None, logits_times="logit_scale")
_POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
_GEMMA_2 = ModelFamily(
    mid="pre_feedforward_layernorm", post_norms=_POST_NORMS, logits_cap="final_logit_softcapping"
)
# Only what the attention and the feed-forward write is normalised, not what they read.
_OLMO_2 = ModelFamily(mid="mlp", post_norms=_POST_NORMS)
_EXPERTS = ModelFamily(down_proj=None)

FAMILIES: dict[str, ModelFamily] = {
    "cohere": _COHERE,
    "cohere2": _COHERE,
    "gemma": _LLAMA_LIKE,
    # Its attention scores are capped, which PyTorch's fused attention does not do.
    "gemma2": replace(_GEMMA_2, sdpa=False),
    # The model that also sees images: only its language model is read and steered. It does not cap
    # its logits, whatever its configuration says.
    "gemma3": replace(
        _GEMMA_2,
        layers="model.language_model.layers",
        final_norm="model.language_model.norm",
        logits_cap=None,
    ),
    "gemma3_text": _GEMMA_2,
    "glm": _LLAMA_LIKE,
    "glm4": ModelFamily(post_norms=("post_self_attn_layernorm", "post_mlp_layernorm")),
    "gpt2": ModelFamily(
        *("transformer", "transformer.h", "attn.c_proj"),
        mid="ln_2",
        down_proj="mlp.c_proj",
        d_mlp="n_inner",
        final_norm="transformer.ln_f",
    ),
    "gpt_neox": ModelFamily(
        *("gpt_neox", "gpt_neox.layers", "attention.dense"),
        parallel_if="use_parallel_residual",
        down_proj="mlp.dense_4h_to_h",
        final_norm="gpt_neox.final_layer_norm",
    ),
    "granite": ModelFamily(logits_over="logits_scaling"),
    "llama": _LLAMA_LIKE,
    "ministral": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "mixtral": _EXPERTS,
    "olmo": _LLAMA_LIKE,
    "olmo2": _OLMO_2,
    "olmo3": _OLMO_2,
    "phi": ModelFamily(
        o_proj="self_attn.dense", mid=None, down_proj="mlp.fc2", final_norm="model.final_layernorm"
    ),
    "phi3": ModelFamily(rereads=True),
    "qwen2": _LLAMA_LIKE,
    "qwen2_moe": _EXPERTS,
    "qwen3": _LLAMA_LIKE,
    "qwen3_moe": _EXPERTS,
    "smollm3": _LLAMA_LIKE,
    "stablelm": ModelFamily(parallel_if="use_parallel_residual"),
    "starcoder2": ModelFamily(down_proj="mlp.c_proj"),
}
"""Known architectures by the ``model_type`` of their configuration class."""


def family_of(config: PreTrainedConfig) -> ModelFamily:
    """Return the row of `FAMILIES` for a model's configuration, by its class.

    Raises:
        UserInputError: the architecture has no row; the message says which one to add.
    """
    name = config.model_type
    if name not in FAMILIES:
        raise UserInputError(
            f"the architecture {name!r} ({type(config).__name__}) is unknown; known: "
            f"{', '.join(sorted(FAMILIES))}. Add a row {name!r} to FAMILIES in "
            "real_tasks/models/families.py with the paths of its decoder, layers, o_proj, mlp and "
            "lm_head"
        )
    if name not in CONFIG_MAPPING:  # an architecture of remote code, for which somebody added a row
        return FAMILIES[name]
    expected: type[PreTrainedConfig] = CONFIG_MAPPING[name]
    if not isinstance(config, expected):
        raise UserInputError(
            f"the configuration calls itself {name!r} but is a {type(config).__module__}."
            f"{type(config).__name__}, no {expected.__name__} of transformers, so the row {name!r} "
            "of FAMILIES in real_tasks/models/families.py may not hold for it; load the checkpoint "
            "with model.trust_remote_code false, or give its class a model_type and a row of its "
            "own"
        )
    return FAMILIES[name]


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """Return the model without its language-model head."""
    return part_of(model, family_of(model.config).decoder)


def check_kind(config: PreTrainedConfig, kind: ModuleKind) -> None:
    """Check that models of a configuration have modules of a kind.

    Raises:
        UserInputError: they do not; names the architectures that do.
    """
    reason = _lacks(family_of(config), config.get_text_config(), kind)
    if reason is None:
        return
    able = ", ".join(name for name, row in FAMILIES.items() if not _lacks(row, None, kind))
    raise UserInputError(
        f"a model of the architecture {config.model_type!r} has no modules of the kind {kind!r}: "
        f"{reason}; choose another kind, or a model of one of these architectures: {able}"
    )


def _lacks(family: ModelFamily, config: PreTrainedConfig | None, kind: ModuleKind) -> str | None:
    if kind == "neuron" and family.down_proj is None:
        return "its feed-forward shares the work out to experts"
    asked = family.parallel_if and (config is None or getattr(config, family.parallel_if))
    if kind == "residual_mid" and (family.mid is None or asked):
        return "its attention and its feed-forward run side by side"
    return None


def write_gains(model: PreTrainedModel) -> dict[ModuleId, Float[Tensor, "d_model"]]:
    """Return by what a norm multiplies what each attention and MLP adds to the residual stream.

    Up to what it divides by, which depends on what is added; float32, on the CPU. Empty where
    nothing stands between them and the stream.
    """
    family = family_of(model.config)
    if family.post_norms is None:
        return {}
    found = {}
    for layer, block in enumerate(cast(nn.ModuleList, part_of(model, family.layers))):
        for kind, path in zip(WRITING, family.post_norms, strict=True):
            norm = part_of(block, path)
            weight = norm.get_parameter("weight")
            # Some norms keep their gain less 1; offloaded ones get their weights when called.
            device = torch.device("cpu") if weight.is_meta else weight.device
            ones = torch.ones(weight.shape, dtype=weight.dtype, device=device)
            found[ModuleId(kind, layer)] = norm(ones).detach().float().cpu()
    return found


def configured_shape(config: PreTrainedConfig) -> ModelShape:
    """Return the shape that a configuration states; ``head_dim`` is its own where it has one."""
    text, family = config.get_text_config(), family_of(config)
    n_heads, d_model = int(text.num_attention_heads), int(text.hidden_size)
    head_dim = int(getattr(text, "head_dim", None) or d_model // n_heads)
    d_mlp = int(getattr(text, family.d_mlp) or 4 * d_model) if family.down_proj else 0
    return ModelShape(int(text.num_hidden_layers), n_heads, head_dim, d_model, d_mlp)


def part_of(module: nn.Module, path: str) -> nn.Module:
    """Return what lies in a module by a path of its family's row.

    Raises:
        UserInputError: there is nothing.
    """
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise UserInputError(
            f"a {type(module).__name__} has no {path!r} ({error}), where the row of its "
            "architecture in FAMILIES in real_tasks/models/families.py says so; correct the row"
        ) from error
