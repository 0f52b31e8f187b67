"""Adapters of peft in or as a checkpoint's folder: they are merged into the weights when read."""

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from real_tasks.models.checkpoints import ADAPTER, ADAPTER_WEIGHTS, CONFIG, FROM_GGUF, has_tokenizer
from real_tasks.models.hub import local_checkpoint
from real_tasks.models.weights import header, read_mapping
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import expanded

log = logging.getLogger(__name__)

MERGED = ("LORA",)
_PARTS = 2
"""Weights of a module that is adapted: A and B."""
_NOT_MERGED = ("alora_invocation_tokens", "layer_replication")
_MERGE = (
    "merge it into its model (peft's merge_and_unload, then save_pretrained) where that is "
    "possible, or move adapter_* out of the folder to read the model without it"
)


def adapter_of(folder: Path) -> Path | None:
    """Return a folder that holds an adapter which can be merged, None where it holds none.

    Raises:
        UserInputError: peft is not installed; the adapter is damaged, pickled, or of a kind that
            cannot be merged into weights.
    """
    file, weights = folder / ADAPTER, folder / ADAPTER_WEIGHTS
    if not file.is_file():
        if weights.is_file():
            raise UserInputError(f"{weights} lies there without its {ADAPTER}; {_MERGE}")
        return None
    check_peft(f"{folder} holds an adapter ({ADAPTER})", _MERGE)
    given = read_mapping(file)
    if given.get("peft_type") not in MERGED:
        raise UserInputError(
            f"{file}: the adapter is of the kind {given.get('peft_type')!r}; those that are read "
            f"are {', '.join(MERGED)}; {_MERGE}"
        )
    for name in _NOT_MERGED:
        if given.get(name):
            raise UserInputError(f"{file} has {name}, which no merged weights do; {_MERGE}")
    from peft import LoraConfig  # an extra: imported where it is used

    known = {field.name for field in fields(LoraConfig)}
    unknown = [name for name, value in given.items() if value and name not in known]
    if unknown:  # peft would leave it out
        raise UserInputError(
            f"{file} has {', '.join(unknown)}, which the peft that is installed does not know; "
            f"install a newer one (pip install -U peft), or {_MERGE}"
        )
    if not weights.is_file():
        raise UserInputError(f"{folder} lacks {ADAPTER_WEIGHTS} (other formats are not read)")
    header(weights)
    return folder


def check_peft(what: str, instead: str) -> None:
    """Check that peft is installed, which ``what`` asks for; ``instead`` is what to do without it.

    Raises:
        UserInputError: it is not.
    """
    if find_spec("peft") is None:
        raise UserInputError(
            f"{what}, and peft, which reads it, is not installed: pip install real-steering[peft], "
            f"or {instead}"
        )


def base_of(folder: Path, config_only: bool = False) -> Path:
    """Return the folder of configuration and weights: of an adapter alone, that of its model.

    Args:
        folder: of a checkpoint, or of an adapter that names its model.
        config_only: of a model on the Hub, fetch only the configuration.

    Raises:
        UserInputError: see `adapter_of`; the adapter's model is not named or not there, or is an
            adapter itself.
    """
    if adapter_of(folder) is None or (folder / CONFIG).is_file():
        return folder
    given = read_mapping(folder / ADAPTER)
    name, revision = given.get("base_model_name_or_path"), given.get("revision")
    if not isinstance(name, str) or not name:
        raise UserInputError(
            f"{folder / ADAPTER} does not name the adapter's model (base_model_name_or_path); add "
            "it, or put the adapter beside the weights of its model"
        )
    beside = folder / name
    try:
        found = expanded(name)
        if not found.is_dir():
            found = beside if beside.is_dir() else local_checkpoint(name, revision, config_only)
    except UserInputError as error:
        raise UserInputError(f"the model of the adapter {folder}: {error}") from error
    if (found / FROM_GGUF).is_file():
        raise UserInputError(
            f"the model {name} of the adapter {folder} is a GGUF file, into which no adapter is "
            "merged; name the checkpoint that the adapter was trained on"
        )
    if adapter_of(found) is not None:
        raise UserInputError(
            f"the model {found} of the adapter {folder} holds an adapter itself; merge that first"
        )
    return found


def tokenizer_of(folder: Path) -> Path:
    """Return the folder of the tokenizer: that of an adapter where it brings one."""
    return folder if has_tokenizer(folder) else base_of(folder, config_only=True)


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """Give a folder of links to a checkpoint's files, in which transformers finds no adapter."""
    if not (folder / ADAPTER).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="real-steering-") as links:
        for path in folder.iterdir():
            if not path.name.startswith("adapter_"):
                (Path(links) / path.name).symlink_to(path.absolute())
        yield Path(links)


def check_adapter(folder: Path, config: PreTrainedConfig) -> None:
    """Check that a folder's adapter, if it holds one, can be merged into such a model.

    It is merged on torch's device ``meta``, into a network without numbers. The folder is that of a
    checkpoint or of an adapter alone.

    Raises:
        UserInputError: see `merged`.
    """
    adapter = adapter_of(folder)
    if adapter is None or type(config) not in AutoModelForCausalLM._model_mapping:
        return  # Remote code: known when it is loaded.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    try:
        with warnings.catch_warnings(action="ignore"):  # of numbers that are put nowhere
            merged(model, adapter)
    except UserInputError as error:
        # What cannot be done without numbers is known when they are there.
        if not isinstance(error.__cause__, NotImplementedError):
            raise


def merged(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Return the model with an adapter merged into its weights, as peft merges it.

    Raises:
        UserInputError: the adapter does not fit the model.
    """
    from peft import PeftConfig, PeftModel  # an extra: imported where it is used

    # peft's stubs know no types of what comes back.
    wrapped: Any
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        config.inference_mode = True
        wrapped = PeftModel(model, config)
        result = wrapped.load_adapter(str(adapter), "default")
        _check_counterparts(config, result.unexpected_keys, result.missing_keys)
        _untie(model)
        whole: Any = wrapped.merge_and_unload()
    except Exception as error:  # whatever peft comes to with weights of another model
        raise UserInputError(
            f"the adapter {adapter} does not fit its model ({type(model).__name__}): {error}; give "
            "the model that it was trained on, or move adapter_* out of the folder to read the "
            "model without it"
        ) from error
    ready: PreTrainedModel = whole.eval()
    return ready


def _untie(model: PreTrainedModel) -> None:
    """Give the head weights of its own where an adapter changes tied embeddings or their head.

    peft adds what is merged into one of them to both; unmerged, it acts where it was trained.
    """
    # Modules of many classes, whose attributes no stub knows.
    inner: Any = model.get_input_embeddings()
    outer: Any = model.get_output_embeddings()
    own = [getattr(module, "base_layer", None) for module in (inner, outer)]
    if any(own) and outer is not None and inner.weight is outer.weight:
        head = own[1] or outer
        head.weight = nn.Parameter(outer.weight.detach().clone())
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False


def _check_counterparts(config: Any, unexpected: list[str], missing: list[str]) -> None:
    """Refuse weights that fit nowhere, and modules that are adapted in part.

    A module that the file leaves out whole stays as it is, as peft has it: its B is all zeros.
    """
    modules = Counter(name.rsplit(".lora_", 1)[0] for name in missing)
    in_part = [name for name, absent in modules.items() if absent != _PARTS]
    if unexpected or in_part or (missing and config.init_lora_weights is not True):
        first = sorted([*unexpected, *in_part, *missing])[0]
        raise ValueError(f"weights have no counterpart, the first {first}")
    if missing:
        log.warning(
            "the adapter has no weights for %d of the modules that its %s names, which stay as "
            "they are (%s, ...)",
            *(len(modules), ADAPTER, sorted(modules)[0]),
        )
