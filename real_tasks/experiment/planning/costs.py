"""What the parts of an experiment cost, from shapes alone: bytes and floating-point operations.

A FLOP is one addition or multiplication of floating-point numbers. Only matrix products are
counted; what else there is costs little beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from real_tasks.models.adapters import base_of
from real_tasks.models.checkpoints import DTYPES, read_config
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.hub import local_checkpoint
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleKind

STORED_BYTES = {"float16": 2, "float32": 4}
FLOAT_BYTES = 4

PARAMETERS_PER_LAYER = 12
"""Parameters of a layer in squares of its width, where they are not known otherwise.

Kaplan et al. 2020 (arXiv 2001.08361), table 1: 12 d^2; embeddings come on top.
"""


@dataclass(frozen=True)
class ModelSize:
    """How large a language model is.

    Attributes:
        parameters: tied ones counted once; of a mixture of experts all, as if all were used.
        itemsize: bytes of a number.
        n_layers: decoder layers.
        d_model: width of the residual stream.
        mlp_width: width inside the feed-forward block.
        kv_width: numbers that a token's keys take in a layer, and its values as many.
        vocabulary: tokens.
        counted: False where all but the shape is a rule of thumb.
    """

    parameters: int
    itemsize: int
    n_layers: int
    d_model: int
    mlp_width: int
    kv_width: int
    vocabulary: int
    counted: bool

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters in memory."""
        return self.parameters * self.itemsize


def architecture_of(model: ModelConfig) -> PreTrainedConfig | None:
    """Return a checkpoint's configuration, or None where ``model.shape`` stands for one not there.

    Raises:
        UserInputError: it is not there, without a shape instead; it is there, but damaged.
    """
    try:
        folder = local_checkpoint(model.path, model.revision, config_only=True)
    except UserInputError:
        if model.shape is None:
            raise
        return None
    return read_config(base_of(folder, config_only=True), model.trust_remote_code)


def model_size(model: ModelConfig, shape: ModelShape) -> ModelSize:
    """Return the size of a model of this shape: counted where at least its config.json is there.

    The network is set up on torch's meta device, which takes no memory and no weights. Without a
    config.json, and for an embedded model, the size follows from the shape.

    Raises:
        UserInputError: see `architecture_of`.
    """
    size = size_of_shape(model, shape)
    architecture = None if model.path in EMBEDDED_MODELS else architecture_of(model)
    if architecture is None:
        return size
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(
            architecture, trust_remote_code=model.trust_remote_code
        )
    text = architecture.get_text_config()
    kv_heads = getattr(text, "num_key_value_heads", None) or shape.n_heads
    return replace(
        size,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        mlp_width=getattr(text, "intermediate_size", None) or size.mlp_width,
        kv_width=kv_heads * shape.head_dim,
        vocabulary=text.vocab_size,
        counted=True,
    )


def size_of_shape(model: ModelConfig, shape: ModelShape) -> ModelSize:
    """Return the size that follows from a shape, and from ``model.shape.parameters`` if stated.

    The rest is a rule of thumb: a feed-forward block of four widths, keys and values for every
    head, and 32,000 tokens.
    """
    stated = model.shape.parameters if model.shape else None
    return ModelSize(
        stated or PARAMETERS_PER_LAYER * shape.n_layers * shape.d_model**2,
        DTYPES[model.dtype].itemsize,
        shape.n_layers,
        shape.d_model,
        mlp_width=4 * shape.d_model,
        kv_width=shape.n_heads * shape.head_dim,
        vocabulary=32_000,
        counted=False,
    )


def activation_bytes(shape: ModelShape, kinds: Sequence[ModuleKind], n: int, dtype: str) -> int:
    """Return the bytes of ``n`` answers' stored activations, without keys and Parquet's own.

    answers x layers x width of the part x bytes of a number, summed over the kinds of modules.
    """
    widths = sum(shape.n_layers_of(kind) * shape.part_width(kind) for kind in kinds)
    return n * widths * STORED_BYTES[dtype]


def forward_flops(parameters: int, tokens: float) -> float:
    """Return the FLOPs of ``tokens`` through a language model: 2 x parameters x tokens.

    Attention's own products, which grow with the square of the length, are left out (Kaplan et
    al. 2020, arXiv 2001.08361, section 2.1).
    """
    return 2.0 * parameters * tokens
