"""What a Hugging Face checkpoint folder has to contain, checked before anything is loaded."""

import json
from pathlib import Path

from real_tasks.errors import UserInputError

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_checkpoint(folder: Path) -> None:
    """Check that a folder holds a configuration, safetensors weights and a tokenizer.

    Raises:
        UserInputError: the path is no folder, or lists everything that is missing from it.
    """
    if not folder.is_dir():
        raise UserInputError(
            f"the model path {str(folder)!r} is no folder; expected the folder of a Hugging Face "
            "checkpoint (as save_pretrained writes it) or the name of an embedded model"
        )
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += _missing_weights(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        missing.append("a tokenizer (tokenizer.json)")
    if missing:
        raise UserInputError(
            f"the folder {str(folder)!r} is no complete Hugging Face checkpoint; missing: "
            f"{', '.join(missing)}. Save the model and its tokenizer with save_pretrained"
        )


def _missing_weights(folder: Path) -> list[str]:
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        return [] if (folder / WEIGHTS).is_file() else [f"{WEIGHTS} (other formats are not read)"]
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, AttributeError) as error:
        raise UserInputError(
            f"{index} is damaged ({error}); fetch or save the model again"
        ) from error
    return [shard for shard in shards if not (folder / shard).is_file()]
