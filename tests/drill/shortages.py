"""What a run lives on and loses: room on the disk, its store."""

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from storage.paths import Home
from tests.drill.homes import (
    RUN,
    Undisturbed,
    check_goes_on,
    ended,
    require,
    start,
    tail,
)

DISK_MB = 192
ROOM_KB = (0, 64, 512, 2_000, 5_000, 9_000, 14_000, 20_000)
"""Room that is left on the disk; a run takes about 24 MB."""
FILE_KB = (4, 64, 512, 2_000, 4_000)
"""Largest file that a process may write, where no disk can be mounted."""
FILLER = "filler"
PROMPT_S = 60
"""Seconds, beyond those of a whole run, in which one must end that cannot go on."""


def full_disk(home: Home, undisturbed: Undisturbed, moment: float, kb: int) -> None:
    """Fill the disk of a run at a moment; once there is room, a further one must complete."""
    disk = home.root.parent / "disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        home = Home(disk / "home")
        if moment == 0:
            _fill(disk, kb)
        process = start(home, *RUN)
        if moment > 0:
            time.sleep(moment * undisturbed.seconds)
            _fill(disk, kb)
        _ends_in_words(home, process, time.monotonic(), undisturbed)
        (disk / FILLER).unlink()
        check_goes_on(home, undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def _fill(disk: Path, kb: int) -> None:
    # The run may take room meanwhile.
    with suppress(OSError), (disk / FILLER).open("wb", buffering=0) as file:
        while shutil.disk_usage(disk).free > 1024 * kb:
            file.write(bytes(64 * 1024))


def small_files(home: Home, undisturbed: Undisturbed, moment: float, kb: int) -> None:
    """Have a run that may write no larger files, however late, a further one must complete."""
    limit = ("prlimit", f"--fsize={1024 * kb}")
    begun = time.monotonic()
    _ends_in_words(home, start(home, *RUN, under=limit), begun, undisturbed)
    check_goes_on(home, undisturbed)


def lost_store(home: Home, undisturbed: Undisturbed, moment: float) -> None:
    """Take a run's store, a folder, away at a random moment; once it is back, a run completes."""
    home = Home(home.root, str(home.root.parent / "store"))
    store = Path(str(home.store))
    store.mkdir(parents=True)
    begun = time.monotonic()
    process = start(home, *RUN)
    time.sleep(moment * undisturbed.seconds)
    away = store.rename(store.with_name("store-away"))
    try:
        status, said = ended(home, process, "run")
        if status != 0:
            _in_words(status, said, time.monotonic() - begun, undisturbed.seconds)
            require("store" in said, f"the error does not name the store: {tail(said)}")
        require(not store.exists(), "a store was made anew where the old one had been")
    finally:
        away.rename(store)
    check_goes_on(home, undisturbed)


def _ends_in_words(
    home: Home, process: "subprocess.Popen[bytes]", begun: float, undisturbed: Undisturbed
) -> None:
    status, said = ended(home, process, "run")
    if status != 0:
        _in_words(status, said, time.monotonic() - begun, undisturbed.seconds)


def _in_words(status: int, said: str, took: float, seconds: float) -> None:
    require(status > 0, f"the run was ended by the signal {-status}: {tail(said)}")
    require("Traceback" not in said, f"a traceback: {tail(said)}")
    require(said.count("─ error ") == 1, f"not one error: {tail(said)}")
    require(took < seconds + PROMPT_S, f"the error came after {took:.0f} s")
