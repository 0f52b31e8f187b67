"""Causal language models, loaded and ready to be read and steered."""

import copy
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from real_tasks.models.adapters import adapter_of, base_of, merged, tokenizer_of, without_adapter
from real_tasks.models.chat import ChatFormat
from real_tasks.models.checking import chat_of, check_shape, check_tokens
from real_tasks.models.checkpoints import (
    check_checkpoint,
    check_files,
    check_tied,
    read_config,
    read_tokenizer,
    read_weights,
)
from real_tasks.models.devices import device_of_embeddings, offloaded, resolve_device
from real_tasks.models.families import ModelFamily, configured_shape, decoder_of, family_of
from real_tasks.models.kept_states import KeptStates
from real_tasks.models.places import model_shape
from real_tasks.models.rope import Regime, followers, forget_longer_texts, length_rules
from real_tasks.models.text_model import longest_text
from real_tasks.models.weight_checks import check_finite
from real_tasks.models.weights import stored_weights
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape

DEFAULT_OPTIONS = ModelConfig()
DEFAULT_EXECUTION = ExecutionConfig()


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model ready to be read and steered, with its tokenizer.

    Hooks are set on module objects, so a model object serves one thread at a time; give every
    thread a `private_copy`.

    Attributes:
        pad_token_id: the id that fills a batch up; always masked, so that any id with an
            embedding would do.
        chat: how prompts are put into the tokenizer's chat template; None: they are plain text.
        batch_limits: by work, most tokens of a batch, where more ran out of memory; see
            `real_tasks.reading.out_of_memory`. Private copies have one between them.
        kept: what is known of the unsteered model's layers, of batches that were read; likewise.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: ModelFamily
    shape: ModelShape
    device: torch.device
    pad_token_id: int
    chat: ChatFormat | None = None
    batch_limits: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    kept: KeptStates = field(default_factory=KeptStates, compare=False, repr=False)

    def hidden_states(self, **inputs: Any) -> Float[Tensor, "row position d_model"]:
        """Run the decoder; its output is on `device`, wherever its last layer is."""
        states: Tensor = self.decoder(**inputs).last_hidden_state
        return states.to(self.device)

    def logits(self, hidden: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Return next-token logits for the decoder's output, with all that the model does last."""
        config, family = self.model.config.get_text_config(), self.family
        logits: Tensor = self.lm_head(hidden).to(hidden.device)
        if family.logits_times is not None:
            logits = logits * getattr(config, family.logits_times)
        if family.logits_over is not None:
            logits = logits / getattr(config, family.logits_over)
        cap = getattr(config, family.logits_cap) if family.logits_cap else None
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def decoder(self) -> nn.Module:
        """The model without its language-model head."""
        return decoder_of(self.model)

    @property
    def lm_head(self) -> nn.Module:
        """The map from hidden states to logits."""
        return self.model.get_submodule(self.family.lm_head)

    @property
    def n_tokens(self) -> int:
        """How many tokens have an embedding; a tokenizer may know others."""
        return _n_tokens(self.model)

    @property
    def max_positions(self) -> int | None:
        """The longest sequence, in tokens, that the model was made for, where it says so."""
        return longest_text(self.model.config)

    def regime(self, length: int) -> Regime:
        """Return what texts must share to stand in one batch; see `real_tasks.models.rope`."""
        return tuple(rule.regime(length) for rule in length_rules(self.model.config))

    def all_short(self, length: int) -> bool:
        """Say whether texts of up to ``length`` tokens may stand in one batch, whatever theirs."""
        return self.regime(length) == self.regime(0)

    def private_copy(self) -> "LoadedModel":
        """Return a model with modules and hooks of its own on the very same weight tensors.

        Raises:
            RuntimeError: the model is being steered, so that its hooks would be copied.
        """
        hooks = [hook for m in self.model.modules() for hook in m._forward_pre_hooks.values()]
        if any(hook is not forget_longer_texts for hook in hooks) or "generate" in vars(self.model):
            raise RuntimeError("copy a model before it is steered or read, not meanwhile")
        shared: dict[int, Any] = {
            id(t): t for t in chain(self.model.parameters(), self.model.buffers())
        }
        # These change with the length of what is read.
        for buffer in (b for rotary in followers(self.model) for b in rotary.buffers()):
            del shared[id(buffer)]
        return replace(self, model=copy.deepcopy(self.model, shared | offloaded(self.model)))


def prepare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str = "cpu"
) -> LoadedModel:
    """Make a model in memory ready: moved to the device, in evaluation mode, without gradients.

    A model that is spread over devices (``device_map``) stays where it is; its device is then that
    of its embeddings.

    Raises:
        UserInputError: unknown architecture or device.
    """
    family, shape, place = family_of(model.config), model_shape(model), resolve_device(device)
    # Fast tokenizers drop stored padding and truncation at their first call, which mutates them;
    # done here, later calls from several threads only read.
    tokenizer(["a"])
    if getattr(model, "hf_device_map", None):
        place = device_of_embeddings(model)
    elif model.device != place:  # quantised weights cannot be moved
        # The stub of `to` is written for the decorator that wraps it.
        model = cast(Any, model).to(place)
    model = model.eval().requires_grad_(False)
    for rotary in followers(model):
        if forget_longer_texts not in rotary._forward_pre_hooks.values():
            rotary.register_forward_pre_hook(forget_longer_texts)
    return LoadedModel(model, tokenizer, family, shape, place, _pad_token_id(model, tokenizer))


def _pad_token_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    known: Any = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    n_tokens = _n_tokens(model)
    # Padding is masked, so that any token serves that has an embedding.
    inside = (int(one) for one in known if one is not None and 0 <= int(one) < n_tokens)
    return next(inside, 0)


def _n_tokens(model: PreTrainedModel) -> int:
    return int(cast(Any, model.get_input_embeddings()).weight.shape[0])


def load_model(
    folder: str | Path,
    options: ModelConfig = DEFAULT_OPTIONS,
    execution: ExecutionConfig = DEFAULT_EXECUTION,
) -> LoadedModel:
    """Load a Hugging Face checkpoint folder: safetensors only, never from the network.

    Args:
        folder: the folder; `real_tasks.models.hub.local_checkpoint` finds it for a Hugging Face id.
        options: type of the weights, attention, chat format, and the shape that was planned with.
        execution: the device, or how to spread the model over several.

    Raises:
        UserInputError: the folder is no checkpoint (says what is missing), is damaged, holds an
            unknown architecture or another shape than was planned with, or has no chat template
            where one is asked for; unknown device; something has to be installed.
    """
    folder = Path(folder)
    resolve_device(execution.device)
    check_checkpoint(folder)
    base = base_of(folder)
    for part in dict.fromkeys((folder, base)):
        check_files(part)
    tokenizer = read_tokenizer(tokenizer_of(folder), options.trust_remote_code)
    chat = chat_of(tokenizer, options)
    check_shape(configured_shape(read_config(base, options.trust_remote_code)), options)
    model = _whole_model(folder, base, options, execution.device_map)
    device = str(device_of_embeddings(model)) if execution.device_map else execution.device
    check_tokens(tokenizer, model.config.get_text_config().vocab_size)
    loaded = prepare(model, tokenizer, device)
    there = (pair for pair in loaded.model.named_parameters() if not pair[1].is_meta)
    check_finite(there, f"the checkpoint {folder}, loaded as {options.dtype}")
    return replace(loaded, chat=chat)


def _whole_model(
    folder: Path, base: Path, options: ModelConfig, device_map: str | None
) -> PreTrainedModel:
    """Read the weights, and merge the folder's adapter into them where it holds one."""
    adapter = adapter_of(folder)
    if adapter is not None and device_map is not None:
        raise UserInputError(
            f"{folder} holds an adapter, which is merged on one device only; set "
            "execution.device_map to null, or merge the adapter with peft and save the model"
        )
    check_checkpoint(base)
    stored_weights(base)  # says what else than weights a file holds
    with without_adapter(base) as plain:
        model = read_weights(plain, options, device_map)
    if adapter is not None:
        model = merged(model, adapter)
    check_tied(base, model)
    return model
