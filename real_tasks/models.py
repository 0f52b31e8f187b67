"""Causal language models: loading a checkpoint, and where its parts lie.

Nothing here knows any model by name. A family of architectures is one row of `FAMILIES`.
"""

import copy
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from real_tasks.checkpoints import read_config, read_weights
from real_tasks.errors import UserInputError
from real_tasks.types import ModelShape

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelFamily:
    """Where the parts of an architecture lie: dotted paths from the causal language model.

    Attributes:
        decoder: the model without its language-model head; its output is already normalised.
        layers: the list of decoder layers.
        o_proj: from a decoder layer, the attention's output projection. Its input is the
            concatenation of the heads, head after head.
        lm_head: from hidden states to logits, with nothing applied to the logits afterwards.
    """

    decoder: str = "model"
    layers: str = "model.layers"
    o_proj: str = "self_attn.o_proj"
    lm_head: str = "lm_head"


FAMILIES: dict[str, ModelFamily] = {
    "llama": ModelFamily(),
    "mistral": ModelFamily(),
    "qwen2": ModelFamily(),
    "qwen3": ModelFamily(),
}
"""Known architectures by the ``model_type`` of their configuration class."""


def family_of(config: PreTrainedConfig) -> ModelFamily:
    """Return the row of `FAMILIES` for a model's configuration.

    Raises:
        UserInputError: the architecture has no row; the message says which one to add.
    """
    if config.model_type not in FAMILIES:
        raise UserInputError(
            f"the architecture {config.model_type!r} ({type(config).__name__}) is unknown; known: "
            f"{', '.join(sorted(FAMILIES))}. Add a row {config.model_type!r} to FAMILIES in "
            "real_tasks/models.py with the paths of its decoder, layers, o_proj and lm_head"
        )
    return FAMILIES[config.model_type]


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """Return the model without its language-model head."""
    return model.get_submodule(family_of(model.config).decoder)


def output_projections(model: PreTrainedModel) -> list[nn.Module]:
    """Return every layer's attention output projection, first layer first."""
    family = family_of(model.config)
    layers = cast(nn.ModuleList, model.get_submodule(family.layers))
    return [layer.get_submodule(family.o_proj) for layer in layers]


def model_shape(model: PreTrainedModel) -> ModelShape:
    """Return the model's shape; ``head_dim`` is the configuration's own where it has one.

    Raises:
        UserInputError: heads times head_dim is not the width of an o_proj's input.
    """
    shape = _configured_shape(model.config)
    projections = output_projections(model)
    width = shape.n_heads * shape.head_dim
    for layer, projection in enumerate(projections):
        if projection.in_features != width:
            raise UserInputError(
                f"layer {layer}: the input of o_proj has {projection.in_features} numbers, but the "
                f"configuration says {shape.n_heads} heads of {shape.head_dim} = {width}; "
                "correct num_attention_heads or head_dim in config.json"
            )
    return replace(shape, n_layers=len(projections))


def checkpoint_shape(path: str | Path) -> ModelShape:
    """Return the shape that a checkpoint folder's configuration states; no weights are read.

    Raises:
        UserInputError: the folder is no checkpoint, or of an unknown architecture.
    """
    config = read_config(Path(path))
    family_of(config)
    return _configured_shape(config)


def _configured_shape(config: PreTrainedConfig) -> ModelShape:
    n_heads = int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // n_heads)
    return ModelShape(int(config.num_hidden_layers), n_heads, head_dim)


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready to be read and steered, with its tokenizer.

    Hooks are set on module objects, so a model object serves one thread at a time; give every
    thread a `private_copy`.

    Attributes:
        pad_token_id: the id that fills a batch up; always masked, so that any id would do.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: ModelFamily
    shape: ModelShape
    device: torch.device
    pad_token_id: int

    @property
    def decoder(self) -> nn.Module:
        """The model without its language-model head."""
        return decoder_of(self.model)

    @property
    def lm_head(self) -> nn.Module:
        """The map from hidden states to logits."""
        return self.model.get_submodule(self.family.lm_head)

    @property
    def max_positions(self) -> int | None:
        """The longest sequence, in tokens, that the model was made for, where it says so."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def private_copy(self) -> "LoadedModel":
        """Return a model with modules and hooks of its own on the very same weight tensors.

        Raises:
            RuntimeError: the model is being steered, so that its hooks would be copied.
        """
        if any(m._forward_pre_hooks for m in self.model.modules()) or "generate" in vars(
            self.model
        ):
            raise RuntimeError("copy a model before it is steered or read, not meanwhile")
        shared = {id(t): t for t in chain(self.model.parameters(), self.model.buffers())}
        return replace(self, model=copy.deepcopy(self.model, shared))


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserInputError: no such name, or this machine has no such device.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if n_cuda else "cpu")
    prefix, _, index = name.partition(":")
    well_formed = name in ("cpu", "cuda") or (prefix == "cuda" and index.isdecimal())
    if not well_formed:
        raise UserInputError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N")
    if prefix == "cuda" and int(index or 0) >= n_cuda:
        raise UserInputError(
            f"device {name!r} is not there: PyTorch sees {n_cuda} CUDA devices; use auto or cpu"
        )
    return torch.device(name)


def prepare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str = "cpu"
) -> LoadedModel:
    """Make a model in memory ready: moved to the device, in evaluation mode, without gradients.

    Raises:
        UserInputError: unknown architecture or device, or a tokenizer without a pad and an
            end-of-sequence token.
    """
    pad_token_id = _pad_token_id(tokenizer)
    family, shape, place = family_of(model.config), model_shape(model), resolve_device(device)
    # Fast tokenizers drop stored padding and truncation at their first call, which mutates them;
    # done here, later calls from several threads only read.
    tokenizer(["a"])
    # The stub of `to` is written for the decorator that wraps it.
    moved = cast(Any, model).to(place)
    return LoadedModel(
        moved.eval().requires_grad_(False), tokenizer, family, shape, place, pad_token_id
    )


def _pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(cast(int, token_id))
    raise UserInputError(
        "the tokenizer has neither a pad nor an end-of-sequence token, so texts of different "
        "lengths cannot be batched; set pad_token in tokenizer_config.json"
    )


def load_model(path: str | Path, dtype: str, device: str) -> LoadedModel:
    """Load a Hugging Face checkpoint folder: safetensors only, never remote code or the network.

    Args:
        path: the folder.
        dtype: type of the weights in memory: float32, bfloat16 or float16.
        device: see `resolve_device`.

    Raises:
        UserInputError: the folder is no checkpoint (says what is missing), is damaged, or holds an
            unknown architecture; unknown dtype or device.
    """
    if dtype not in DTYPES:
        raise UserInputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    resolve_device(device)
    checkpoint_shape(path)
    model, tokenizer = read_weights(Path(path), DTYPES[dtype])
    return prepare(model, tokenizer, device)
