"""What a run lives on and loses: room on the disk, its store."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Lock

from storage.paths import Home
from tests.drill.homes import (
    Undisturbed,
    check_goes_on,
    contents,
    ended_in_words,
    require,
    start,
    tail,
)
from tests.s3_server import S3Server
from tests.terminal import RUN

DISK_MB = 192
ROOM_KB = (0, 64, 512, 2_000, 5_000, 9_000, 14_000, 20_000)
"""Room that is left on the disk; a run takes about 24 MB."""
FILE_KB = (4, 64, 512, 2_000, 4_000)
"""Largest file that a process may write, where no disk can be mounted."""
FILLER = "filler"
PROMPT_S = 120
"""Seconds, beyond those of a whole run, in which one must end that cannot go on."""
_ONE_BUCKET = Lock()


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
        ended_in_words(home, process, undisturbed.seconds + PROMPT_S)
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
    ended_in_words(home, start(home, *RUN, under=limit), undisturbed.seconds + PROMPT_S)
    check_goes_on(home, undisturbed)


def lost_folder(home: Home, undisturbed: Undisturbed, moment: float) -> None:
    """Take a run's store, a folder, away at a random moment; once it is back, a run completes."""
    store = home.root.parent / "store"
    store.mkdir(parents=True)

    @contextmanager
    def away() -> Iterator[None]:
        elsewhere = store.rename(store.with_name("store-away"))
        try:
            yield
            require(not store.exists(), "a store was made anew where the old one had been")
        finally:
            elsewhere.rename(store)

    _lost_store(Home(home.root, str(store)), undisturbed, moment, away)


def lost_bucket(home: Home, undisturbed: Undisturbed, moment: float, server: S3Server) -> None:
    """Take a run's store, in S3, away at a random moment; once it is back, a run completes."""
    with _ONE_BUCKET:
        store = f"{server.url}/{home.root.parent.name}"
        _lost_store(Home(home.root, store), undisturbed, moment, server.away)


def silent_bucket(home: Home, undisturbed: Undisturbed, moment: float, server: S3Server) -> None:
    """Have a run's store, in S3, take what is asked and not answer; then a run completes."""
    with _ONE_BUCKET:
        store = f"{server.url}/{home.root.parent.name}"
        _lost_store(Home(home.root, store), undisturbed, moment, server.silent)


def _lost_store(
    home: Home,
    undisturbed: Undisturbed,
    moment: float,
    away: Callable[[], AbstractContextManager[None]],
) -> None:
    process = start(home, *RUN)
    time.sleep(moment * undisturbed.seconds)
    with away():
        said = ended_in_words(home, process, undisturbed.seconds + PROMPT_S)
        require("store" in said, f"the run does not name the store: {tail(said)}")
    run = check_goes_on(home, undisturbed)
    other = Home(home.root.parent / "other", home.store)
    there = contents(other, run) == undisturbed.contents
    require(there, "another machine finds other numbers in the store")
