"""Kill, crowd, starve, attack: what is tried, and how often something was lost.

Run as ``python -m tests.drill`` (Linux; the full disk needs root, for a small file system of its
own, and is played by a limit on the size of files otherwise). Ends with 1 where something was lost.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

from storage.paths import Home
from tests.drill.crowds import crowd
from tests.drill.homes import (
    LostError,
    Undisturbed,
    check_all,
    check_left,
    completed_run,
    contents,
    kill_all,
)
from tests.drill.kills import killed_run, killed_stack, terminated_run
from tests.drill.shortages import (
    FILE_KB,
    ROOM_KB,
    full_disk,
    lost_bucket,
    lost_folder,
    silent_bucket,
    small_files,
)
from tests.drill.sql import hostile_sql
from tests.s3_server import S3Server, s3_server

Trial = Callable[[Home], str | None]
"""Raises an error where something is lost; may say what was tried."""


def main() -> None:
    """Make the reference, try everything, print the table."""
    arguments = parsed()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drill-") as folder, s3_server() as server:
        os.environ.update(server.environment)
        reference = Home(Path(folder) / "reference" / "home")
        found = contents(reference, completed_run(reference))
        undisturbed = Undisturbed(found, time.monotonic() - begun)
        check_left(reference)
        check_all(reference, undisturbed)
        say(f"an undisturbed run takes {undisturbed.seconds:.0f} s; seed {arguments.seed}")
        lost = [
            tried(name, trials, Path(folder), arguments.at_once)
            for name, trials in (
                scenarios(arguments, undisturbed, server) | hostile(arguments, reference.root)
            ).items()
        ]
    say(f"{datetime.now(UTC):%Y-%m-%d}, {(time.monotonic() - begun) / 60:.0f} min")
    raise SystemExit(1 if any(lost) else 0)


def scenarios(
    counts: argparse.Namespace, undisturbed: Undisturbed, server: S3Server
) -> dict[str, list[Trial]]:
    """Return what is to be tried, each with a home of its own."""
    draw = Random(counts.seed)

    def at_moments(trial: Callable[..., None], count: int) -> list[Trial]:
        moments = [draw.random() for _ in range(count)]
        return [partial(trial, undisturbed=undisturbed, moment=moment) for moment in moments]

    def drawing(trial: Callable[..., str], count: int) -> list[Trial]:
        draws = [Random(draw.random()) for _ in range(count)]
        return [partial(trial, undisturbed=undisturbed, draw=one) for one in draws]

    disk: Callable[..., None] = full_disk if os.geteuid() == 0 else small_files
    sizes = ROOM_KB if disk is full_disk else FILE_KB
    full: list[Trial] = [
        partial(disk, undisturbed=undisturbed, moment=moment, kb=size)
        for size in sizes
        for moment in (0.0, draw.random())
    ]
    return {
        "a run is killed": drawing(killed_run, counts.kills),
        "a run is asked to end (SIGTERM)": drawing(terminated_run, counts.terms),
        "`real up` with a run is killed": at_moments(killed_stack, counts.stacks),
        "runs at once, beside readers": [
            partial(crowd, undisturbed=undisturbed, count=count)
            for count in (counts.crowd,)
            if count
        ],
        "the disk is full": full[: counts.disks],
        "the store, a folder, goes away": at_moments(lost_folder, counts.stores),
        "the store, in S3, goes away": at_moments(
            partial(lost_bucket, server=server), counts.stores
        ),
        "the store, in S3, never answers": at_moments(
            partial(silent_bucket, server=server), counts.stores
        ),
    }


def hostile(counts: argparse.Namespace, reference: Path) -> dict[str, list[Trial]]:
    """Return the one trial of hostile SQL, on a copy of the reference."""
    trial = partial(hostile_sql, reference=reference, seed=counts.seed, calls=counts.sql)
    return {"SQL is hostile": [trial] if counts.sql else []}


def parsed() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=50, help="of a run")
    parser.add_argument("--terms", type=int, default=20, help="SIGTERM to a run")
    parser.add_argument("--stacks", type=int, default=10, help="kills of `real up` with a run")
    parser.add_argument("--crowd", type=int, default=8, help="runs at once")
    parser.add_argument("--disks", type=int, default=2 * len(ROOM_KB), help="full disks")
    parser.add_argument("--stores", type=int, default=5, help="stores of each kind that go away")
    parser.add_argument("--sql", type=int, default=250, help="calls of SQL's functions")
    parser.add_argument("--at-once", type=int, default=1, help="trials, each on its own home")
    return parser.parse_args()


def tried(name: str, trials: list[Trial], folder: Path, at_once: int) -> int:
    """Try one scenario, print its line, and return how often something was lost."""

    def one(number: int, trial: Trial) -> str | None:
        place = Path(tempfile.mkdtemp(dir=folder))
        what, tale = None, None
        try:
            tale = trial(Home(place / "home"))
        except LostError as error:
            what = f"  {number}: {error}"
        except Exception as error:  # of what was asked for: lost as well
            what = f"  {number}: {error!r}"
        finally:
            kill_all(place)
            shutil.rmtree(place, ignore_errors=True)
        say(what or f"  {number}: nothing lost{f', {tale}' if tale else ''}")
        return what

    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        lost = [what for what in pool.map(one, range(len(trials)), trials) if what]
    took = time.monotonic() - begun
    say(f"{name:<32} tried {len(trials):>3}  lost {len(lost):>3}  {took:>5.0f} s")
    return len(lost)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True, file=sys.stdout)  # noqa: T201


if __name__ == "__main__":
    main()
