"""Where an architecture takes a constant displacement as a bias, a row of `ROUTES` for each.

A displacement of every position, added at the input of ``o_proj``, is a bias ``W_o @ displacement``
on its output; one added to an MLP's output is a bias of the MLP's last projection; and one added to
the residual stream after a block is the same bias again wherever the block ends with
``residual + mlp(...)``. So a row says which projections have a bias, or get one by a field of the
configuration. Read from the modelling code of transformers 5.23. What has no entry has no such bias
in its class: a norm stands between the MLP and the residual stream (Gemma 2 and 3, OLMo 2 and 3),
or the projection is built without one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleKind


@dataclass(frozen=True)
class BiasSite:
    """A projection that has a bias, or can have one.

    Attributes:
        projection: dotted path from a decoder layer.
        flag: field of the configuration that gives it its bias; None: it always has one.
        divided_by: field of the configuration that the block multiplies its MLP's output by before
            it is added to the residual stream; the bias for ``layer`` is divided by it.
    """

    projection: str
    flag: str | None = None
    divided_by: str | None = None


@dataclass(frozen=True)
class Route:
    """How an architecture takes displacements as biases.

    Attributes:
        sites: by kind of module, the projection whose bias takes the displacement.
        as_llama: the class itself has no such bias, but its weights are those of a Llama (or, with
            a sliding window, of a SmolLM3) checkpoint; see `real_tasks.export.remap`.
    """

    sites: Mapping[ModuleKind, BiasSite] = field(default_factory=dict)
    as_llama: bool = False


Sites = dict[ModuleKind, BiasSite]


def _head(projection: str, flag: str | None = None) -> Sites:
    return {"head": BiasSite(projection, flag)}


def _mlp(projection: str, flag: str | None = None, multiplier: str | None = None) -> Sites:
    return {
        "mlp": BiasSite(projection, flag),
        "layer": BiasSite(projection, flag, multiplier),
    }


_O_PROJ = _head("self_attn.o_proj", "attention_bias")
_DOWN_PROJ = _mlp("mlp.down_proj", "mlp_bias")
_ATTENTION_ONLY = Route(_O_PROJ)
_LLAMA = Route(_O_PROJ | _DOWN_PROJ)
_LIKE_LLAMA = Route(_O_PROJ | _DOWN_PROJ, as_llama=True)

ROUTES: dict[str, Route] = {
    "cohere": _ATTENTION_ONLY,
    "cohere2": _ATTENTION_ONLY,
    "gemma": _ATTENTION_ONLY,
    "gemma2": _ATTENTION_ONLY,
    "gemma3": _ATTENTION_ONLY,
    "gemma3_text": _ATTENTION_ONLY,
    "gpt2": Route(_head("attn.c_proj") | _mlp("mlp.c_proj")),
    "gpt_neox": Route(_head("attention.dense", "attention_bias") | _mlp("mlp.dense_4h_to_h")),
    "granite": Route(_O_PROJ | _mlp("mlp.down_proj", "mlp_bias", "residual_multiplier")),
    "llama": _LLAMA,
    "ministral": _LIKE_LLAMA,
    "mistral": _LIKE_LLAMA,
    "olmo": _ATTENTION_ONLY,
    "olmo2": _ATTENTION_ONLY,
    "olmo3": _ATTENTION_ONLY,
    "phi": Route(_head("self_attn.dense") | _mlp("mlp.fc2")),
    "phi3": _LIKE_LLAMA,
    "qwen2": _LIKE_LLAMA,
    "qwen3": _ATTENTION_ONLY,
    "qwen3_moe": _ATTENTION_ONLY,
    "smollm3": _LLAMA,
    "starcoder2": Route(_head("self_attn.o_proj", "use_bias") | _mlp("mlp.c_proj", "use_bias")),
}
"""By ``model_type``; an architecture without a row is exported as a steering spec only."""

OTHER_ROUTE = (
    "export the steering spec instead (--format spec), which steers any known architecture with "
    "hooks, in every token scope"
)


def site_of(model_type: str, kind: ModuleKind) -> tuple[Route, BiasSite]:
    """Return how an architecture takes displacements of a kind.

    Raises:
        UserInputError: it cannot; the message names the other route.
    """
    route = ROUTES.get(model_type, Route())
    if kind in route.sites:
        return route, route.sites[kind]
    able = sorted(name for name, other in ROUTES.items() if kind in other.sites)
    raise UserInputError(
        f"a displacement of kind {kind!r} cannot be baked into a checkpoint of the architecture "
        f"{model_type!r}: it has no bias that equals it; it can for {', '.join(able)}. Please "
        + OTHER_ROUTE
    )
