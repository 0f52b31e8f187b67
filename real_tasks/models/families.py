"""Architectures: where the parts of a causal language model lie, one row of `FAMILIES` for each.

Nothing here knows any model by name. Whoever adds a row adds a tiny checkpoint to the tests, which
then hold for it.
"""

from dataclasses import dataclass, replace
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleKind


@dataclass(frozen=True)
class ModelFamily:
    """Where the parts of an architecture lie: dotted paths from the causal language model.

    Attributes:
        decoder: the model without its language-model head; its output is already normalised.
        layers: the list of decoder layers.
        o_proj: from a decoder layer, the attention's output projection. Its input is the
            concatenation of the heads, head after head.
        mlp: from a decoder layer, the feed-forward block; its output is the module ``mlp``.
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
    lm_head: str = "lm_head"
    logits_times: str | None = None
    logits_over: str | None = None
    logits_cap: str | None = None
    sdpa: bool = True
    rereads: bool = False


_LLAMA_LIKE = ModelFamily()
_GEMMA = ModelFamily(logits_cap="final_logit_softcapping")

FAMILIES: dict[str, ModelFamily] = {
    "cohere": ModelFamily(logits_times="logit_scale"),
    "cohere2": ModelFamily(logits_times="logit_scale"),
    "gemma": _LLAMA_LIKE,
    # Its attention scores are capped, which PyTorch's fused attention does not do.
    "gemma2": replace(_GEMMA, sdpa=False),
    # The model that also sees images: only its language model is read and steered. It does not cap
    # its logits, whatever its configuration says.
    "gemma3": ModelFamily(layers="model.language_model.layers"),
    "gemma3_text": _GEMMA,
    "glm": _LLAMA_LIKE,
    "glm4": _LLAMA_LIKE,
    "gpt2": ModelFamily("transformer", "transformer.h", "attn.c_proj"),
    "gpt_neox": ModelFamily("gpt_neox", "gpt_neox.layers", "attention.dense"),
    "granite": ModelFamily(logits_over="logits_scaling"),
    "llama": _LLAMA_LIKE,
    "ministral": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "mixtral": _LLAMA_LIKE,
    "olmo": _LLAMA_LIKE,
    "olmo2": _LLAMA_LIKE,
    "olmo3": _LLAMA_LIKE,
    "phi": ModelFamily(o_proj="self_attn.dense"),
    "phi3": ModelFamily(rereads=True),
    "qwen2": _LLAMA_LIKE,
    "qwen2_moe": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "qwen3_moe": _LLAMA_LIKE,
    "smollm3": _LLAMA_LIKE,
    "stablelm": _LLAMA_LIKE,
    "starcoder2": _LLAMA_LIKE,
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
    return _part(model, family_of(model.config).decoder)


def sites(model: PreTrainedModel, kind: ModuleKind) -> list[nn.Module]:
    """Return, first layer first, the network's part where modules of a kind are read and steered.

    For ``head`` that is the attention's output projection, at its input; for ``layer`` the decoder
    layer and for ``mlp`` its feed-forward block, at their outputs.
    """
    family = family_of(model.config)
    layers = list(cast(nn.ModuleList, _part(model, family.layers)))
    if kind == "layer":
        return layers
    return [_part(layer, family.o_proj if kind == "head" else family.mlp) for layer in layers]


def output_projections(model: PreTrainedModel) -> list[nn.Module]:
    """Return every layer's attention output projection, first layer first."""
    return sites(model, "head")


def projection_weight(projection: nn.Module) -> Float[Tensor, "d_out d_in"]:
    """Return a projection's weight so that the output is ``weight @ input + bias``.

    GPT-2's `Conv1D` keeps it the other way round.
    """
    weight = projection.get_parameter("weight")
    return weight.T if isinstance(projection, Conv1D) else weight


def configured_shape(config: PreTrainedConfig) -> ModelShape:
    """Return the shape that a configuration states; ``head_dim`` is its own where it has one."""
    text = config.get_text_config()
    n_heads = int(text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // n_heads)
    return ModelShape(int(text.num_hidden_layers), n_heads, head_dim, int(text.hidden_size))


def model_shape(model: PreTrainedModel) -> ModelShape:
    """Return the model's shape, its configuration's checked against its weights.

    Raises:
        UserInputError: heads times head_dim is not the width of an o_proj's input.
    """
    shape = configured_shape(model.config)
    projections = output_projections(model)
    width = shape.n_heads * shape.head_dim
    for layer, projection in enumerate(projections):
        d_in = projection_weight(projection).shape[1]
        if d_in != width:
            raise UserInputError(
                f"layer {layer}: the input of o_proj has {d_in} numbers, but the "
                f"configuration says {shape.n_heads} heads of {shape.head_dim} = {width}; "
                "correct num_attention_heads or head_dim in config.json"
            )
    return replace(shape, n_layers=len(projections))


def _part(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise UserInputError(
            f"a {type(module).__name__} has no {path!r} ({error}), where the row of its "
            "architecture in FAMILIES in real_tasks/models/families.py says so; correct the row"
        ) from error
