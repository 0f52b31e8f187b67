"""From a GGUF file to an ordinary checkpoint: first all but the weights, then the weights too."""

import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import modeling_gguf_pytorch_utils as reading

from real_tasks.models.checkpoints import CONFIG, FROM_GGUF, read_config, read_tokenizer
from real_tasks.models.checksums import state_of
from real_tasks.models.families import family_of
from real_tasks.models.gguf.files import GgufHeader, read_header
from real_tasks.models.gguf.settings import complete
from real_tasks.models.tokenizer_files import PROBES
from real_tasks.models.weight_checks import quiet
from real_tasks.vocabulary.errors import UserInputError
from storage.paths import Home

_FORM = 1
"""Of what is kept of a file; another one is made anew."""
_BESIDE = "rope_freqs.weight"
"""Of the positions: see `settings`."""


def described(file: Path) -> Path:
    """Return a folder with all of a GGUF file's checkpoint but its weights.

    It is made once, which takes seconds, and kept under the home.

    Raises:
        UserInputError: the file cannot be read, or is of a model that cannot be.
    """
    folder = Home.current().models / "described" / _key(file)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as room:
            made = Path(room) / "made"
            made.mkdir()
            _describe(file, made)
            if not folder.is_dir():
                made.rename(folder)
    return folder


def convert(file: Path, out: Path) -> None:
    """Write a GGUF file's model into an empty folder, an ordinary checkpoint with float32 weights.

    Raises:
        UserInputError: see `described`; weights are damaged, or of another shape.
    """
    source = described(file)
    model = _network(read_config(source))
    with quiet():
        model.load_state_dict(_dequantised(file, model), assign=True, strict=False)
        model.tie_weights()
        empty = [name for name, weight in model.named_parameters() if weight.is_meta]
        assert not empty, empty  # `_check_names` has seen to it
        model.save_pretrained(out)
    for path in source.iterdir():
        if path.name not in (CONFIG, FROM_GGUF):
            shutil.copy(path, out)


def _dequantised(file: Path, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    try:
        found: dict[str, torch.Tensor] = reading.load_gguf_checkpoint(
            str(file), return_tensors=True, model_to_load=model, torch_dtype=torch.float32
        )["tensors"]
    except Exception as error:  # whatever a damaged file comes to
        raise UserInputError(
            f"the weights in {file} cannot be read ({type(error).__name__}: {error}); fetch it "
            "again, or give the checkpoint that it was made of"
        ) from error
    known = model.state_dict()
    wrong = [name for name, weight in found.items() if weight.shape != known[name].shape]
    if wrong:
        there, wanted = (tuple(one[wrong[0]].shape) for one in (found, known))
        raise UserInputError(
            f"the weights in {file} do not fit what it says of itself: {wrong[0]} has the shape "
            f"{there}, expected {wanted} ({len(wrong)} in all); fetch it again, or give the "
            "checkpoint that it was made of"
        )
    return found


def _network(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model without numbers, which takes no memory."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def _key(file: Path) -> str:
    place = file.resolve()
    versions = [version(name) for name in ("transformers", "gguf")]
    told = [_FORM, str(place), *state_of(place), *versions]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _describe(file: Path, folder: Path) -> None:
    from real_tasks.models.gguf import tokenizers  # of transformers it imports a lot

    header = read_header(file)
    config = _configuration(file, header)
    complete(file, config, header)
    _check_names(file, config, header)
    config.save_pretrained(folder)
    ids = ("bos", "eos", "padding")
    bos, eos, padding = (header.facts.get(f"tokenizer.ggml.{name}_token_id") for name in ids)
    turn = header.facts.get("tokenizer.ggml.eot_token_id", eos)
    ends = eos if turn == eos else [eos, turn]
    GenerationConfig(bos_token_id=bos, eos_token_id=ends, pad_token_id=padding).save_pretrained(
        folder
    )
    tokenizer = tokenizers.read_tokenizer(file, header)
    tokenizer.save_pretrained(folder)
    (folder / FROM_GGUF).write_text(json.dumps({"file": file.name}))
    again = read_tokenizer(folder)
    tokenizers.check_tokenizer(file, header, again)
    differ = [text for text in PROBES if again(text)["input_ids"] != tokenizer(text)["input_ids"]]
    assert not differ and again.chat_template == tokenizer.chat_template, differ


def _configuration(file: Path, header: GgufHeader) -> PreTrainedConfig:
    try:
        with quiet():
            given, _ = PreTrainedConfig.get_config_dict(
                file.parent, gguf_file=file.name, local_files_only=True
            )
            config: PreTrainedConfig = AutoConfig.for_model(**given)
    except Exception as error:  # whatever a file of another form comes to
        raise UserInputError(
            f"{file} is of the architecture {header.architecture!r}, whose GGUF files transformers "
            f"cannot read ({type(error).__name__}: {error}); give the checkpoint that it was made "
            "of"
        ) from error
    family_of(config)
    if hasattr(config, "_model_name_or_path"):  # as its author calls it
        del config._model_name_or_path
    config.dtype = torch.float32
    return config


def _check_names(file: Path, config: PreTrainedConfig, header: GgufHeader) -> None:
    """Refuse weights that transformers would leave out, or make up, without a word."""
    model = _network(config)
    processor: Any = reading.TENSOR_PROCESSORS.get(header.architecture, reading.TensorProcessor)
    places = reading.get_gguf_hf_weights_map(model, processor(config=config.to_dict()))
    tied = model.all_tied_weights_keys if config.tie_word_embeddings else {}
    filled = {places[name] for name in header.sizes if name in places}
    left = sorted(header.sizes.keys() - places.keys() - {_BESIDE})
    lacks = sorted(model.state_dict().keys() - filled - tied.keys())
    if left or lacks:
        what = f"holds {', '.join(left[:3])}" if left else f"lacks {', '.join(lacks[:3])}"
        raise UserInputError(
            f"{file} {what} ({len(left or lacks)} in all), unlike the network that transformers "
            f"makes of {header.architecture!r}, so that another model than this one would be "
            "measured; give the checkpoint that it was made of"
        )
