"""Data sets of the Hugging Face Hub, through the library ``datasets`` (extra ``data``).

``HF_HOME``, ``HF_HUB_OFFLINE`` and ``HF_DATASETS_OFFLINE`` say where they are kept, and whether the
network may be used.
"""

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

from pydantic import Field, model_validator

from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError


class HubOrFile(Frozen):
    """Where questions come from: a file, or a data set of the Hub."""

    path: str | None = None
    revision: str | None = Field(
        None, description="branch, tag or commit of the Hub data set; its main branch without"
    )
    skip_bad: bool = Field(False, description="keep the good lines of a file with bad ones")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.path is not None and self.revision is not None:
            raise ValueError("revision is one of the Hub's: give path or revision, not both")
        return self


def hub_records(
    name: str, config: str | None, split: str, revision: str | None = None
) -> list[Mapping[str, Any]]:
    """Return the records of one split of a data set, named as ``truthfulqa/truthful_qa``.

    ``config`` is its subset, None where it has one only; ``revision`` a branch, tag or commit.

    Raises:
        UserInputError: the library is not installed, or the data set cannot be had (says how).
    """
    library = _library()
    try:
        data = library.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        folder = _downloaded(name, revision)
        if folder is None:
            raise UserInputError(_how_to_get(name, revision, error)) from error
        try:
            data = library.load_dataset(folder, config, split=split)
        except (OSError, ValueError, RuntimeError) as fault:
            raise UserInputError(
                f"the data set {name!r} is downloaded, but its subset {config!r}, split {split!r} "
                f"cannot be read from there: {fault}; download it again with "
                f"'hf download --repo-type dataset {name}'"
            ) from fault
    return list(cast(Iterable[Mapping[str, Any]], data))


def _library() -> Any:
    if importlib.util.find_spec("datasets") is None:
        raise UserInputError(
            "data sets of the Hub need the library datasets, which is not installed: "
            "pip install real-steering[data]; or name a local file"
        )
    return importlib.import_module("datasets")


def _downloaded(name: str, revision: str | None) -> str | None:
    """Return where ``hf download`` keeps the data set; `datasets` alone, offline, ignores that."""
    hub = importlib.import_module("huggingface_hub")
    try:
        found = hub.snapshot_download(
            name, repo_type="dataset", revision=revision, local_files_only=True
        )
    except (OSError, ValueError):
        return None
    return str(found)


def _how_to_get(name: str, revision: str | None, error: Exception) -> str:
    version = f" --revision {revision}" if revision else ""
    reason = " ".join(str(error).split())[:300]
    return (
        f"the Hub data set {name!r} cannot be had ({type(error).__name__}: {reason}); where there "
        f"is a network, run 'hf download --repo-type dataset {name}{version}', copy the folder "
        "that HF_HOME names if that is another machine, and unset HF_HUB_OFFLINE if it may be "
        "downloaded here; or name a local file"
    )
