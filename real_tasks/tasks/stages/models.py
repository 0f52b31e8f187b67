"""From a reference back to a model, whose weights are loaded once a process."""

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from real_tasks.models.checksums import remembered_checksum
from real_tasks.models.hub import local_checkpoint
from real_tasks.models.identity import checkpoint_content
from real_tasks.models.loading import LoadedModel, load_model
from real_tasks.tasks.cache.stage import store
from real_tasks.vocabulary.config import ExecutionConfig, Frozen, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from storage.artifacts.store import ArtifactRef
from storage.paths import Home
from storage.runs.verdicts import VerdictMemory

MODEL_ID_LENGTH = 16
"""Hexadecimal digits of a model's digest that tables show."""
_loading = threading.Lock()


class ModelRef(Frozen):
    """A model: its checkpoint, and how it is loaded."""

    config: ModelConfig
    checkpoint: ArtifactRef

    @property
    def columns(self) -> dict[str, str]:
        """What tables say of it: its name, and what tells it from others of that name."""
        return {"model": self.config.name, "model_id": self.checkpoint.digest[:MODEL_ID_LENGTH]}

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from other models: its name, content and how it is read, not its place."""
        how = self.config.model_dump(mode="json", exclude={"path", "revision", "shape", "params"})
        return {"name": self.config.name, "content": self.checkpoint.digest, **how}

    def load(self, execution: ExecutionConfig) -> LoadedModel:
        """Return it with modules and hooks of its own; the weights are loaded once a process."""
        with _loading:
            folder = str(checkpoint_folder(self.checkpoint, self.config))
            where = (execution.device, execution.device_map)
            how = self.config.model_dump_json()
            return _loaded(folder, self.checkpoint.digest, how, *where).private_copy()


def content_of(folder: Path, config: ModelConfig) -> dict[str, str]:
    """Return the checksum of every file that is read of a checkpoint, remembered in the home."""
    memory = VerdictMemory(Home.current())
    return checkpoint_content(folder, config.trust_remote_code, memory)


def checksum_of(file: Path) -> str:
    """Return the SHA-256 of a file, remembered in the home."""
    return remembered_checksum(file.resolve(), VerdictMemory(Home.current()))


def checkpoint_folder(ref: ArtifactRef, config: ModelConfig) -> Path:
    """Return the folder of the checkpoint: the artifact itself, or where its very files lie here.

    The artifact may have been made on another machine, where the checkpoint lies elsewhere.

    Raises:
        UserInputError: the files have changed since, or are nowhere.
    """
    facts = store().facts(ref)
    if facts.get("folder") is None:
        return store().open(ref)
    kept, expected = Path(facts["folder"]), facts.get("files")
    if expected is None:  # made before files were recorded; the weights tell later
        return kept if kept.is_dir() else local_checkpoint(config.path, config.revision)
    if kept.is_dir() and content_of(kept, config) == expected:
        return kept
    found = local_checkpoint(config.path, config.revision)
    there = content_of(found, config)
    if there == expected:
        return found
    differ = sorted(n for n in there.keys() | expected if there.get(n) != expected.get(n))
    raise UserInputError(
        f"the checkpoint {found} is another one than the run began with: {', '.join(differ)} "
        "changed since; put the former files back, or run the experiment again with these"
    )


@lru_cache(maxsize=1)
def _loaded(
    folder: str, _digest: str, config: str, device: str, device_map: str | None
) -> LoadedModel:
    execution = ExecutionConfig(device=device, device_map=device_map)
    return load_model(folder, ModelConfig.model_validate_json(config), execution)
