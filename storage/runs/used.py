"""Which artifacts runs use: written down while they run, so that it is known however they end.

A run holds the home in use; artifacts are removed only while no run does.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from storage.artifacts.store import MANIFEST, ArtifactRef
from storage.errors import StorageError
from storage.locks import locked
from storage.paths import Home
from storage.runs.run import run_folder
from storage.tables.written import USED

RECORD = "run.json"
_IN_USE = ".in-use"

Name = tuple[str, str]
"""Kind and key of an artifact."""


def note_used(home: Home, run_id: str, refs: Iterable[ArtifactRef]) -> None:
    """Write down that a run uses artifacts, so that they are kept as long as the run is."""
    lines = [json.dumps({"kind": ref.kind, "key": ref.key}) for ref in refs]
    with (run_folder(home, run_id) / USED).open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


@contextmanager
def in_use(home: Home) -> Iterator[None]:
    """Keep artifacts from being removed while the context lasts; waits for a removal to end."""
    with locked(home.root / _IN_USE, shared=True):
        yield


@contextmanager
def unused(home: Home) -> Iterator[bool]:
    """Tell whether no run uses the home, and keep runs from starting while the context lasts."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(home.root / _IN_USE, wait=False))
        except BlockingIOError:
            yield False
        else:
            yield True


def used_artifacts(home: Home, run_ids: Iterable[str]) -> set[Name]:
    """Return the artifacts that runs refer to, and those that these were made from.

    Raises:
        StorageError: the list of a run is damaged.
    """
    found: set[Name] = set()
    waiting: list[Name] = [name for run_id in run_ids for name in _noted(home, run_id)]
    while waiting:
        kind, key = name = waiting.pop()
        if name not in found:
            found.add(name)
            inputs = _json(home.artifacts / kind / key / MANIFEST).get("inputs")
            waiting.extend(_references(inputs))
    return found


def _noted(home: Home, run_id: str) -> Iterator[Name]:
    folder = run_folder(home, run_id)
    try:
        *lines, _cut = (folder / USED).read_bytes().split(b"\n")  # by a kill, while it was written
        for line in lines:
            yield from _references(json.loads(line))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(
            f"{folder / USED}, the artifacts that the run {run_id} uses, is damaged ({error}); "
            f"`real run {folder / 'config.yaml'}` uses them again: remove the file then"
        ) from error
    yield from _references(_json(folder / RECORD))


def _references(tree: Any) -> Iterator[Name]:
    """Find all references in a tree of JSON."""
    if isinstance(tree, dict):
        if isinstance(tree.get("kind"), str) and isinstance(tree.get("key"), str):
            yield tree["kind"], tree["key"]
        for below in tree.values():
            yield from _references(below)
    elif isinstance(tree, list):
        for below in tree:
            yield from _references(below)


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}
