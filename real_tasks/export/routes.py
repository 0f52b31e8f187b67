"""Where an architecture takes steering in its weights, a row of `ROUTES` for each.

An affine edit of what a projection reads or puts out is another weight and, where it adds a
constant, a bias of that projection; a constant added to the residual stream behind a projection is
its bias too, wherever the block is ``residual + projection(...)``. So a row says which projections
have a bias, or get one by a field of the configuration. Read from the modelling code of
transformers 5.23. What has no entry has no such bias in its class: a norm stands between projection
and residual stream (Gemma 2 and 3, GLM 4, OLMo 2 and 3), or the projection is built without one.
"""

from dataclasses import dataclass
from typing import Literal

from real_tasks.models.families import FAMILIES
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleKind

Projection = Literal["o_proj", "down_proj", "embedding", "lm_head"]
Side = Literal["input", "output", "behind"]
WRITTEN: dict[ModuleKind, tuple[Projection, Side]] = {
    "head": ("o_proj", "input"),
    "attention": ("o_proj", "output"),
    "residual_mid": ("o_proj", "behind"),
    "neuron": ("down_proj", "input"),
    "mlp": ("down_proj", "output"),
    "layer": ("down_proj", "behind"),
    "residual_in": ("embedding", "output"),
    "final": ("lm_head", "input"),
}
"""By kind, the projection that an edit is written into, and where its site lies: what the
projection reads or puts out, or the residual stream that this is added to. ``residual_in`` of a
layer behind the first one is the ``layer`` before it."""

ALWAYS = "always"
"""Instead of a field of the configuration: the projection has a bias in every model."""


@dataclass(frozen=True)
class Route:
    """How an architecture takes constants as biases.

    Attributes:
        o_proj: field of the configuration that gives the attention's output projection a bias;
            None: it has none.
        down_proj: the same for the feed-forward's last projection.
        adds: whether what these put out is added to the residual stream, no norm between.
        times: field of the configuration that it is multiplied by before.
        embedding_times: field of the configuration that embeddings are multiplied by.
        positions: the embedding of positions that is added to that of tokens, from the model.
        only_tokens: whether nothing else is put in their place, as features of images are.
        as_llama: the class itself has no such bias, but its weights are those of a Llama (or, with
            a sliding window, of a SmolLM3) checkpoint; see `real_tasks.export.remap`.
    """

    o_proj: str | None = None
    down_proj: str | None = None
    adds: bool = True
    times: str | None = None
    embedding_times: str | None = None
    positions: str | None = None
    only_tokens: bool = True
    as_llama: bool = False

    def bias(self, kind: ModuleKind) -> str | None:
        """Return the field of the configuration by which constants of a kind have their bias."""
        projection, side = WRITTEN[kind]
        if projection == "embedding":
            return ALWAYS  # the row of every token takes it
        if projection == "lm_head" or (side == "behind" and not self.adds):
            return None
        return self.o_proj if projection == "o_proj" else self.down_proj


_ATTENTION_ONLY = Route("attention_bias")
_NORMED = Route("attention_bias", adds=False)
_LLAMA = Route("attention_bias", "mlp_bias")
_LIKE_LLAMA = Route("attention_bias", "mlp_bias", as_llama=True)

ROUTES: dict[str, Route] = {
    "cohere": _ATTENTION_ONLY,
    "cohere2": _ATTENTION_ONLY,
    "gemma": _ATTENTION_ONLY,
    "gemma2": _NORMED,
    "gemma3": Route("attention_bias", adds=False, only_tokens=False),
    "gemma3_text": _NORMED,
    "glm4": Route(adds=False),
    "gpt2": Route(ALWAYS, ALWAYS, positions="transformer.wpe"),
    "gpt_neox": Route("attention_bias", ALWAYS),
    "granite": Route(
        "attention_bias",
        "mlp_bias",
        times="residual_multiplier",
        embedding_times="embedding_multiplier",
    ),
    "llama": _LLAMA,
    "ministral": _LIKE_LLAMA,
    "mistral": _LIKE_LLAMA,
    "olmo": _ATTENTION_ONLY,
    "olmo2": _NORMED,
    "olmo3": _NORMED,
    "phi": Route(ALWAYS, ALWAYS),
    "phi3": _LIKE_LLAMA,
    "qwen2": _LIKE_LLAMA,
    "qwen3": _ATTENTION_ONLY,
    "qwen3_moe": _ATTENTION_ONLY,
    "smollm3": _LLAMA,
    "starcoder2": Route("use_bias", "use_bias"),
}
"""By ``model_type``; an architecture without a row takes no constant but in its embeddings."""

OTHER_ROUTE = (
    "export the steering spec instead (--format spec), which steers any known architecture with "
    "hooks, in every token scope"
)


def route_of(model_type: str) -> Route:
    """Return how an architecture takes constants."""
    return ROUTES.get(model_type, Route())


def check_constants(model_type: str, kind: ModuleKind) -> None:
    """Check that an architecture takes constants of a kind.

    Raises:
        UserInputError: it does not; the message names those that do, and the other route.
    """
    if route_of(model_type).bias(kind) is not None:
        return
    able = sorted(name for name in FAMILIES if route_of(name).bias(kind) is not None)
    raise UserInputError(
        f"a displacement of kind {kind!r} cannot be baked into a checkpoint of the architecture "
        f"{model_type!r}: it has no bias that equals it; it can for {', '.join(able) or 'none'}. "
        "Please " + OTHER_ROUTE
    )
