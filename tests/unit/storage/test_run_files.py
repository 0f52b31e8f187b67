"""A run's files are as the run left them, or are said not to be."""

import json
import subprocess
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.paths import Home
from storage.runs.files import SUMS, note_checksums, read_run_json, run_file

RECORD = json.dumps({"outcome": {}, "stages": []})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def folder(home: Home) -> Path:
    folder = home.runs / "r1"
    (folder / "specs" / "real").mkdir(parents=True)
    (folder / "run.json").write_text(RECORD)
    (folder / "report.html").write_text("a page")
    (folder / "specs" / "real" / "steering.json").write_text("{}")
    note_checksums(home, "r1")
    return folder


def test_files_as_the_run_left_them_are_read(home: Home, folder: Path) -> None:
    assert read_run_json(home, "r1", "run.json", "outcome", "stages") == json.loads(RECORD)
    assert run_file(home, "r1", "specs/real") == folder / "specs" / "real"
    (folder / "report.html").write_text("another page")
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, check=True)
    assert b"specs/real/steering.json: OK" in done.stdout


def test_every_flipped_bit_is_found(home: Home, folder: Path) -> None:
    sound = (folder / "run.json").read_bytes()
    for place in range(len(sound)):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << place % 8
        (folder / "run.json").write_bytes(flipped)
        with pytest.raises(StorageError, match=r"run\.json of the run r1 is damaged"):
            read_run_json(home, "r1", "run.json")


@pytest.mark.parametrize("change", ["changed", "gone", "folder"])
def test_a_damaged_file_of_a_folder_is_named(home: Home, folder: Path, change: str) -> None:
    path = folder / "specs" / "real" / "steering.json"
    path.unlink()
    if change == "changed":
        path.write_text("[]")
    if change == "folder":
        path.mkdir()
    with pytest.raises(StorageError, match=r"steering\.json of the run r1 is damaged .*real run"):
        run_file(home, "r1", "specs/real")
    assert read_run_json(home, "r1", "run.json")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"1", b"{}", b"\xff\x00", b"{", b"[" * 100_000]
)
def test_json_of_another_form_is_refused_in_runs_without_checksums_too(
    home: Home, folder: Path, content: bytes
) -> None:
    (folder / SUMS).unlink()
    (folder / "run.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"run\.json of the run r1 is damaged"):
        read_run_json(home, "r1", "run.json", "outcome")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"no sums"])
def test_damaged_checksums_are_no_traceback(home: Home, folder: Path, content: bytes) -> None:
    (folder / SUMS).write_bytes(content)
    try:
        assert read_run_json(home, "r1", "run.json")["stages"] == []
    except StorageError as error:
        assert "is damaged" in str(error)
