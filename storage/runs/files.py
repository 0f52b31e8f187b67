"""What lies in a run's folder, read with care: each file is as the run left it, or said not to be.

``SHA256SUMS`` (``sha256sum -c`` reads it) has the checksums of a completed run's files. The report,
which is written anew, and the list of used artifacts, which is added to, are not in it. Runs of
earlier versions have none, and are read as they are.
"""

import json
from pathlib import Path
from typing import Any

from storage.errors import StorageError
from storage.paths import Home
from storage.references import checksum, file_names
from storage.runs.run import run_folder
from storage.tables.written import SUMS, USED

_CHANGING = ("report.html", USED)


def note_checksums(home: Home, run_id: str) -> None:
    """Write down the checksums of a run's files: it is done with them."""
    folder = run_folder(home, run_id)
    names = [n for n in file_names(folder) if n not in (*_CHANGING, SUMS) and not n.startswith(".")]
    lines = [f"{checksum(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def run_file(home: Home, run_id: str, name: str) -> Path:
    """Return the path of a file of a run, or of a folder with files, as the run left it.

    Raises:
        StorageError: it is missing, or was changed since.
    """
    folder = run_folder(home, run_id)
    path = folder / name
    try:
        for below, expected in _sums(folder).items():
            if below == name or below.startswith(f"{name}/"):
                if not (folder / below).is_file():
                    raise damaged_run(home, run_id, folder / below, "it is missing")
                if checksum(folder / below) != expected:
                    raise damaged_run(home, run_id, folder / below, "it was changed")
        if not path.exists():
            raise damaged_run(home, run_id, path, "it is missing")
    except (OSError, UnicodeDecodeError) as error:
        raise damaged_run(home, run_id, path, str(error)) from error
    return path


def read_run_json(home: Home, run_id: str, name: str, *keys: str) -> dict[str, Any]:
    """Return the content of a JSON file of a run: an object that has ``keys``.

    Raises:
        StorageError: it is missing or damaged.
    """
    path = run_file(home, run_id, name)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_run(home, run_id, path, str(error)) from error
    if not isinstance(found, dict) or not set(keys) <= found.keys():
        raise damaged_run(home, run_id, path, f"expected an object with {', '.join(keys)}")
    return found


def damaged_run(home: Home, run_id: str, path: Path, why: str) -> StorageError:
    """Return the error that a file of a run cannot be used, and how to go on."""
    return StorageError(
        f"{path} of the run {run_id} is damaged ({why}); `real run "
        f"{run_folder(home, run_id) / 'config.yaml'}` runs its configuration again, and takes from "
        "the cache what it did"
    )


def _sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
