"""Measure speed and memory, as ratios to baselines of the same run, and print the table.

    python -m tests.benchmarks [NAME ...] [--write]

Each benchmark runs in a process of its own. Fails where a ratio is below the least that will do.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context

from tests.benchmarks.common import Options
from tests.benchmarks.speed_table import measured, table, write

NAMES = (
    *("localizer", "extraction", "tuning", "prefix", "hooks"),
    *("serving", "overhead", "sql", "plan"),
)


def main() -> int:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0: torch's default")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that a median is of")
    parser.add_argument("--small", action="store_true", help="only to see that it works")
    parser.add_argument("--write", action="store_true", help="write the tables of both pages")
    given = vars(parser.parse_args())
    names, to_write = given.pop("names") or NAMES, given.pop("write")
    if unknown := set(names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if to_write and (set(names) != set(NAMES) or given["small"]):
        parser.error("only a whole run is written: leave out names and --small")
    options = Options(**given)
    when = (
        f"Measured {date.today()} on {os.cpu_count()} cores, {os.getloadavg()[0]:.1f} of them busy."
    )
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        rows = sum(pool.map(measured, names, [options] * len(names)), [])
    if to_write:
        write([when, "", *table(rows)])
    sys.stdout.write("\n".join(table(rows)) + "\n")
    return 0 if all(row.enough for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
