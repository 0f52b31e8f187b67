"""Steering baked into an ordinary Hugging Face checkpoint, as weights and biases.

`real_tasks.export.targets` says what can be, `real_tasks.export.rewriting` works it out.

What it writes is loaded by plain transformers and needs nothing of this project.
"""

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from real_tasks.export.affine import adds_constant, check_baking, written_kinds
from real_tasks.export.remap import State, llama_config, llama_state
from real_tasks.export.rewriting import rewritten
from real_tasks.export.routes import ALWAYS, OTHER_ROUTE, route_of
from real_tasks.models.adapters import base_of
from real_tasks.models.loading import LoadedModel
from real_tasks.models.tokenizer_files import PROBES
from real_tasks.steering.edits import Intervention
from real_tasks.steering.fits import check_fits
from real_tasks.vocabulary.errors import UserInputError

SHARD_SIZE = "5GB"
_COMPANIONS = (
    "*token*",
    "vocab*",
    "merges.txt",
    "*.tiktoken",
    "*.model",
    "chat_template*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files that a checkpoint has beside its weights and its configuration, taken along as they are."""


@dataclass(frozen=True)
class Baked:
    """What was written.

    Attributes:
        architecture: class that loads it.
        was: class of the original.
        biases: names of the biases that steer, as in the checkpoint.
        weights: names of the weights that do.
        dtype: of the weights.
        notes: sentences on where it may differ from the hooked model.
    """

    architecture: str
    was: str
    biases: tuple[str, ...]
    dtype: str
    notes: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()

    @property
    def counts(self) -> str:
        """What steers, for people."""
        biases = f"{len(self.biases)} biases"
        return f"{len(self.weights)} weights and {biases}" if self.weights else biases


def bake(loaded: LoadedModel, intervention: Intervention, source: Path, target: Path) -> Baked:
    """Write into a folder a checkpoint whose logits are those of the model under the intervention.

    What is other is computed in float32 and rounded to the type of the model's weights. The model
    is not steered at present; edits are affine, at every position, and not gated. From the
    ``source``, the folder of its checkpoint, tokenizer, chat template and generation configuration
    are taken along unchanged.

    Raises:
        UserInputError: an intervention that no weights can do, or none of this architecture; a
            quantised or partly offloaded model; an intervention that does not fit the model.
    """
    model = loaded.model
    check_bake(model, intervention)
    made = rewritten(model, intervention)
    state = dict(model.state_dict())
    route = route_of(model.config.model_type)
    as_llama = route.as_llama and bool(made.biases.keys() - state.keys())
    config = baked_config(model.config, intervention, as_llama)
    if made.untied:
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
    if as_llama:
        state = llama_state(model.config, state)
    architecture = _save(config, state | made.weights | made.biases, model.dtype, target)
    for folder in dict.fromkeys((base_of(source), source)):  # an adapter's own files come last
        copy_companions(folder, target)
    keep_tokenizer(loaded.tokenizer, target)
    return Baked(
        architecture=architecture,
        was=type(model).__name__,
        biases=tuple(made.biases),
        dtype=str(model.dtype).removeprefix("torch."),
        notes=tuple(_notes(model.config, as_llama)),
        weights=tuple(made.weights),
    )


def baked_config(
    config: PreTrainedConfig, intervention: Intervention, as_llama: bool
) -> PreTrainedConfig:
    """Return the configuration of the exported model, a new one that has the biases."""
    made = llama_config(config) if as_llama else copy.deepcopy(config)
    route = route_of(config.model_type)
    for edit in intervention.edits:
        if adds_constant(edit, intervention.strength):
            for flag in map(route.bias, written_kinds(edit)):
                if flag not in (None, ALWAYS):
                    setattr(made.get_text_config(), flag, True)
    if as_llama and config.model_type == "qwen2":
        made.attention_bias = True  # its q, k and v have one, whatever is steered
    # transformers notes where a configuration came from: a path of this machine.
    made.name_or_path = ""
    return made


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, chat template, generation configuration and licence as they are."""
    for pattern in _COMPANIONS:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


def keep_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Make sure that the folder's tokenizer cuts texts as the given one does.

    transformers chooses a tokenizer's class by the architecture too, which may be another now.

    Raises:
        UserInputError: it cuts texts otherwise whatever is tried.
    """
    for remedy in (_no_remedy, _declare_general_class, tokenizer.save_pretrained):
        remedy(folder)
        if _same_tokens(tokenizer, folder):
            return
    raise UserInputError(
        "the tokenizer of this checkpoint cuts texts otherwise under the architecture that it "
        "would be exported as; please " + OTHER_ROUTE
    )


def _no_remedy(folder: Path) -> None:
    """Leave the tokenizer as it was copied."""


def _declare_general_class(folder: Path) -> None:
    """Have the class read that follows ``tokenizer.json`` alone; all versions know it."""
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    said["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(said, indent=2, ensure_ascii=False), encoding="utf-8")


def _same_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    try:
        other = cast(Any, AutoTokenizer).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError):
        return False
    return all(tokenizer(text)["input_ids"] == other(text)["input_ids"] for text in PROBES)


def check_bake(model: PreTrainedModel, intervention: Intervention) -> None:
    """Check that an intervention can be written into a model's weights.

    Raises:
        UserInputError: see `bake`.
    """
    check_baking(intervention, model.config.model_type)
    if getattr(model.config, "quantization_config", None) is not None:
        raise UserInputError(
            "the model is quantised; bake the steering into the full-precision checkpoint and "
            "quantise that, or " + OTHER_ROUTE
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise UserInputError(
            "parts of the model are not in memory (offloaded by execution.device_map); load it "
            "with execution.device=cpu and execution.device_map=null for the export"
        )
    check_fits(model, intervention)


def _notes(config: PreTrainedConfig, as_llama: bool) -> list[str]:
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if not as_llama or rope.get("rope_type") != "longrope":
        return []
    return [
        f"Text that grows past {rope['original_max_position_embeddings']} tokens while it is "
        f"generated: {type(config).__name__.removesuffix('Config')}'s own class reads the whole "
        "text anew there, with its frequencies for long texts; the class declared here keeps what "
        "it has read. Prompts longer than that are read alike."
    ]


def _save(config: PreTrainedConfig, state: State, dtype: torch.dtype, target: Path) -> str:
    """Write configuration and weights; return the name of the class that loads them."""
    with torch.device("meta"):
        # The stub knows no return type.
        empty: PreTrainedModel = cast(Any, AutoModelForCausalLM).from_config(config, dtype=dtype)
    expected = empty.state_dict()
    for name in expected.keys() - state.keys():
        # What has a bias now and is not steered.
        assert name.endswith(".bias"), name
        state[name] = torch.zeros(expected[name].shape, dtype=expected[name].dtype)
    assert not state.keys() - expected.keys(), sorted(state.keys() - expected.keys())
    # Some published generation configurations do not pass the check on saving; the file is copied.
    empty.generation_config = GenerationConfig()
    empty.save_pretrained(target, state_dict=state, max_shard_size=SHARD_SIZE)
    (target / "generation_config.json").unlink(missing_ok=True)
    return type(empty).__name__
