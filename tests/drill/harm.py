"""What may be damaged in a home, and how."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

KINDS: Mapping[str, str] = {
    "table of runs": "tables/runs/2*.parquet",
    "table": "tables/[!rs]*/2*.parquet",
    "samples": "tables/samples/*.parquet",
    "merged table": "tables/*/compacted-*.parquet",
    "names of merged parts": "tables/*/.compacted",
    "folder of a table": "tables/[!.]*",
    "lock": "tables/.*.lock",
    "record": "runs/*/run.json",
    "configuration": "runs/*/config.yaml",
    "spec": "runs/*/specs/*/*/steering.json",
    "tensors of a spec": "runs/*/specs/*/*/steering.safetensors",
    "picture": "runs/*/figures/*.png",
    "words of pictures": "runs/*/figures/pictures.json",
    "report": "runs/*/report.html",
    "checksums": "runs/*/SHA256SUMS",
    "used artifacts": "runs/*/artifacts.jsonl",
    "folder of a run": "runs/2*",
    "payload": "artifacts/[!.]*/*/[!mc]*",
    "manifest": "artifacts/[!.]*/*/manifest.json",
    "cache record": "artifacts/[!.]*/*/cache-record.json",
    "artifact": "artifacts/[!.]*/*",
    "place": ".place",
    "lock of the home": ".in-use",
    "state of the stack": "stack/state.json",
    "MLflow's database": "mlflow/mlflow.db",
    "MLflow's artifacts": "mlflow/artifacts",
    "note of a run": "shared/*/known/run-*",
    "note of an artifact": "shared/*/known/[!r]*",
    "run in the store": "../store/artifacts/run/*/manifest.json",
    "file of a run in the store": "../store/artifacts/run/*/*/*/*/*",
    "artifact in the store": "../store/artifacts/[!r]*/*",
}
"""Files of a home by what they are, as patterns below it; the store lies beside it."""
OF_STORES = tuple(kind for kind, found in KINDS.items() if found.startswith(("shared", "../store")))
"""Those that matter only where a store is used."""


def _rewritten(change: Callable[[bytes, Random], bytes]) -> Callable[[Path, Random], None]:
    def apply(path: Path, draw: Random) -> None:
        path.write_bytes(change(path.read_bytes(), draw))

    return apply


def _flipped(content: bytes, draw: Random) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _gone(path: Path, _draw: Random) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folder(path: Path, draw: Random) -> None:
    _gone(path, draw)
    path.mkdir()


def _file(path: Path, draw: Random) -> None:
    _gone(path, draw)
    path.write_bytes(b"a file\n")


def _nowhere(path: Path, draw: Random) -> None:
    _gone(path, draw)
    path.symlink_to(path.parent / "nowhere" / "at all")


def _closed(path: Path, _draw: Random) -> None:
    path.chmod(0)


DAMAGES: Mapping[str, Callable[[Path, Random], None]] = {
    "deleted": _gone,
    "emptied": _rewritten(lambda _content, _draw: b""),
    "a bit flipped": _rewritten(_flipped),
    "cut off": _rewritten(lambda content, draw: content[: draw.randrange(len(content) or 1)]),
    "binary": _rewritten(lambda _content, draw: draw.randbytes(300)),
    "null": _rewritten(lambda _content, _draw: b"null\n"),
    "a list": _rewritten(lambda _content, _draw: b'[1, {"a": 2}]\n'),
    "a mapping": _rewritten(lambda _content, _draw: b'{"a": {"b": null}}\n'),
    "a folder": _folder,
    "a file": _file,
    "a link to nowhere": _nowhere,
    "not to be read": _closed,
}
OF_FOLDERS = ("deleted", "a folder", "a file", "a link to nowhere", "not to be read")


def harmed(home: Path, kind: str, damage: str, draw: Random) -> Path | None:
    """Damage one file of a kind, and return it; None where there is none that may be so damaged."""
    found = sorted(home.glob(KINDS[kind]))
    if not found:
        return None
    path = draw.choice(found)
    if path.is_dir() and damage not in OF_FOLDERS:
        return None
    DAMAGES[damage](path, draw)
    return Path(os.path.normpath(path))
