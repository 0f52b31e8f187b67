"""Named queries over 10 million scores: 5,000 runs of 2,000 each, in their files and compacted.

Run as ``python -m tests.benchmarks.bench_sql``; ``--home`` keeps the generated home for the next
time. Prints each query's wall time and processor time, best of three, and fails beyond ``--limit``
seconds once compacted (the file system's cache warm, on a machine with nothing else to do). Then a
million rows are printed as CSV and as a table, which fails beyond twice the processor time.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil

from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.sql.queries import NamedQuery, named_queries
from storage.upkeep.compaction import compact
from tests.benchmarks.many_runs import home_of

MODEL, BEHAVIOUR = "small", "refusal"
REPEATS = 3
SLOWER = 2.0
"""How many times slower than CSV a table may be printed."""
ROWS = """
SELECT 'run-' || i % 1000 AS run, i AS question, i / 7 AS value, i % 2 = 0 AS holds,
       TIMESTAMP '2026-01-01' + to_seconds(i) AS at
FROM range(1000000) t(i)
"""


def main() -> None:
    """Generate, measure, compact, measure again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--limit", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = home_of(arguments.home or Path(folder) / "kept", arguments.runs)
        work = Home(Path(folder) / "work")
        shutil.copytree(kept.tables, work.tables, copy_function=_link)
        say(f"{arguments.runs} runs, {_size(work) / 1e6:.0f} MB, {os.cpu_count()} cores")
        say("as runs left them:")
        measure(work)
        start = time.perf_counter()
        done = compact(work, timedelta(0), min_parts=1)
        took = time.perf_counter() - start
        say(f"compaction: {sum(one.rows for one in done)} rows in {took:.0f} s, {_memory()}")
        say("compacted:")
        slowest = measure(work)
        ratio = print_rows(work)
    say(f"slowest: {slowest:.2f} s, limit {arguments.limit} s")
    if slowest > arguments.limit or ratio > SLOWER:
        raise SystemExit(1)


def print_rows(home: Home) -> float:
    """Print what a million rows take as CSV and as a table; return the second to the first."""
    took = {}
    for output in ("csv", "table"):
        used = _processor()
        _, texts = Catalog(home).text(ROWS, {"output": output, "width": 120}, 600)
        took[output] = _processor() - used
        say(
            f"  a million rows, {output}: {took[output]:.1f} s, {sum(map(len, texts)) / 1e6:.0f} MB"
        )
    return took["table"] / took["csv"]


def measure(home: Home) -> float:
    """Print what every query takes, and return the longest wall time."""
    catalog, slowest = Catalog(home), 0.0
    last = "SELECT max(run_id) AS last FROM runs WHERE model = $model AND status = 'completed'"
    run_id = catalog.query(last, parameters={"model": MODEL}).to_pylist()[0]["last"]
    given = {"model": MODEL, "behaviour": BEHAVIOUR, "run_id": run_id}
    for name, query in named_queries().items():
        times = [_timed(catalog, query, given) for _ in range(REPEATS)]
        wall, cpu, rows = min(times)
        slowest = max(slowest, wall)
        say(f"  @{name:<20} {wall:6.2f} s  {cpu:6.2f} s of processor  {rows:6d} rows")
    say(f"  {_memory()}")
    return slowest


def _timed(catalog: Catalog, query: NamedQuery, given: dict[str, str]) -> tuple[float, float, int]:
    required = {p.name: given[p.name] for p in query.parameters if p.required}
    wall, cpu = time.perf_counter(), _processor()
    found = catalog.query(query.sql, 600, query.bind(required))
    return time.perf_counter() - wall, _processor() - cpu, found.num_rows


def _processor() -> float:
    """Return the processor time of this process and of those that answer its queries."""
    own = psutil.Process()
    used = [process.cpu_times() for process in (own, *own.children())]
    return sum(times.user + times.system for times in used)


def _link(source: str, target: str) -> str:
    os.link(source, target)
    return target


def _files(home: Home) -> Iterator[Path]:
    return (path for path in home.tables.rglob("*.parquet"))


def _size(home: Home) -> int:
    return sum(path.stat().st_size for path in _files(home))


def _memory() -> str:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return f"largest memory of the process so far {used:.0f} MB"


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
