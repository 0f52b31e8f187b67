"""A full disk: found before work begins, told from other errors, and the end of a run."""

import errno
import shutil
import sqlite3
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from flows import cli
from storage.artifacts.store import prepare_home
from storage.paths import Home
from storage.room import NoRoomError, check_room, room_error

Usage = namedtuple("Usage", "total used free")


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("a shard failed") from inner
    except RuntimeError as outer:
        return outer


def full_database() -> Exception:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 2")
    try:
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    except sqlite3.OperationalError as error:
        return error
    raise AssertionError("the database has room")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        full_database(),
        RuntimeError('IoError(Os { code: 28, message: "No space left on device" })'),
    ],
)
def test_a_full_disk_is_known_however_its_error_is_wrapped(
    tmp_path: Path, error: Exception
) -> None:
    for one in (error, wrapped(error), wrapped(wrapped(error))):
        found = room_error(Home(tmp_path), one)
        assert found is not None and str(tmp_path) in str(found) and "real clean" in str(found)


def test_other_errors_are_none_of_a_full_disk(tmp_path: Path) -> None:
    circle = ValueError("no number")
    circle.__cause__ = wrapped(circle)
    for error in (circle, OSError(errno.EACCES, "Permission denied"), KeyError("disk"), None):
        assert room_error(Home(tmp_path), error) is None


def test_nothing_begins_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_room(Home(tmp_path), 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**9, 10**9, 3_000_000))
    with pytest.raises(NoRoomError, match=r"3\.0 MB are free, at least 64 MB are needed"):
        prepare_home(Home(tmp_path / "home"))


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
def test_the_command_line_says_so_in_one_error(
    wrap: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(wrap)
    error = wrap(OSError(errno.ENOSPC, "No space left on device"))

    def fail(_arguments: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("error") == 1 and "is full" in said and "Traceback" not in said


RUN = """
import shutil, sys, time
from collections import namedtuple
from pathlib import Path
from flows.running.run_watch import needs_watched
from storage.paths import Home

room = [10**9]
shutil.disk_usage = lambda path: namedtuple("Usage", "free")(room[0])
with needs_watched(Home(Path(sys.argv[1]))):
    pass
with needs_watched(Home(Path(sys.argv[1]))):
    room[0] = 1_000_000
    time.sleep(60)
print("went on")
"""


def test_a_run_ends_with_one_error_when_its_disk_fills(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 2
    assert "1.0 MB are free" in " ".join(done.stderr.replace("│", " ").split())
    assert "went on" not in done.stdout
