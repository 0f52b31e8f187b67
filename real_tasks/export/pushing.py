"""Putting on the Hub what was exported, or tried."""

from pathlib import Path

from real_tasks.export.snippets import CARD, HEADS, VECTOR
from real_tasks.models.checkpoints import ADAPTER, CONFIG
from real_tasks.models.hub_folders import pushed
from real_tasks.steering.spec import SteeringSpec
from real_tasks.steering.spec_files import FACTS_FILE, TENSORS_FILE
from real_tasks.vocabulary.errors import UserInputError

_EXPORTS = (FACTS_FILE, CONFIG, ADAPTER, HEADS, VECTOR)


def push_export(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload an export with its card, which a spec that has none gets; return the commit's address.

    Raises:
        UserInputError: the folder holds no export; see `real_tasks.models.hub_folders.pushed` too.
    """
    if not any((folder / name).is_file() for name in _EXPORTS):
        raise UserInputError(
            f"{str(folder)!r} holds nothing that `real export` or `real try` writes (one of "
            f"{', '.join(_EXPORTS)}), and is not uploaded; name such a folder"
        )
    if (folder / TENSORS_FILE).is_file() and not (folder / CARD).is_file():
        return SteeringSpec.load(folder).push_to_hub(repo, private=private)
    return pushed(folder, repo, private=private)
