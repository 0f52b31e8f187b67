"""How large a home is: bytes and files by kind of artifact and by table."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from storage.paths import Home


@dataclass(frozen=True)
class Usage:
    """What a part of the home takes: ``artifacts/activations``, ``tables/runs``, ``mlflow``, ...

    Items are artifacts, a table's parts, or files.
    """

    part: str
    items: int
    size_bytes: int


def usage(home: Home) -> list[Usage]:
    """Return what each kind of artifact, each table and each other folder takes, largest first.

    A home that is not there takes nothing.
    """
    parts = [*_parts(home.artifacts), *_parts(home.tables)]
    if home.root.is_dir():
        apart = {home.artifacts, home.tables}
        parts += [path for path in home.root.iterdir() if path.is_dir() and path not in apart]
    found = [_measure(home, part) for part in parts]
    return sorted((item for item in found if item.items), key=lambda item: -item.size_bytes)


def _parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _measure(home: Home, part: Path) -> Usage:
    sizes = list(_sizes(part.rglob("*")))
    is_kind = part.parent == home.artifacts
    items = sum(1 for path in part.iterdir() if path.is_dir()) if is_kind else len(sizes)
    return Usage(str(part.relative_to(home.root)), items, sum(sizes))


def _sizes(paths: Iterable[Path]) -> Iterable[int]:
    for path in paths:
        try:
            if path.is_file():
                yield path.stat().st_size
        except FileNotFoundError:  # removed meanwhile
            continue
