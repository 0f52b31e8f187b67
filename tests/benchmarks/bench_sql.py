"""Named queries over 10 million scores: 5,000 runs of 2,000 each, in their files and compacted.

A query's time is the best of three (the file system's cache warm, on a machine with nothing else to
do). Then a million rows are printed as CSV and as a table.
"""

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
from tests.benchmarks.common import Options, Row
from tests.benchmarks.many_runs import write_runs

MODEL, BEHAVIOUR = "small", "refusal"
REPEATS, LIMIT = 3, 2.0
SLOWER = 2.0
"""How many times slower than CSV a table may be printed."""
ROWS = """
SELECT 'run-' || i % 1000 AS run, i AS question, i / 7 AS value, i % 2 = 0 AS holds,
       TIMESTAMP '2026-01-01' + to_seconds(i) AS at
FROM range(1000000) t(i)
"""


def rows(options: Options) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        write_runs(home, options.sized(5000, 20))
        left = measured(home)
        compact(home, timedelta(0), min_parts=1)
        compacted = measured(home)
        as_csv, as_table = (printed(home, output) for output in ("csv", "table"))
    slowest = max(compacted.values())
    yield Row("slowest named query, compacted, s", slowest, LIMIT, "the limit", least=1, short=True)
    for name, took in compacted.items():
        yield Row(f"@{name}, s", took, left[name], "not compacted")
    what = "a million rows as a table, s of processor"
    yield Row(what, as_table, as_csv, "as CSV", least=1 / SLOWER)


def printed(home: Home, output: str) -> float:
    """Processor time to print a million rows."""
    used = _processor()
    _, texts = Catalog(home).text(ROWS, {"output": output, "width": 120}, 600)
    assert sum(map(len, texts)) > 1e6
    return _processor() - used


def measured(home: Home) -> dict[str, float]:
    """Wall seconds of every named query."""
    catalog = Catalog(home)
    last = "SELECT max(run_id) AS last FROM runs WHERE model = $model AND status = 'completed'"
    run_id = catalog.query(last, parameters={"model": MODEL}).to_pylist()[0]["last"]
    given = {"model": MODEL, "behaviour": BEHAVIOUR, "run_id": run_id}
    return {
        name: min(_timed(catalog, query, given) for _ in range(REPEATS))
        for name, query in named_queries().items()
    }


def _timed(catalog: Catalog, query: NamedQuery, given: dict[str, str]) -> float:
    required = {p.name: given[p.name] for p in query.parameters if p.required}
    start = time.perf_counter()
    catalog.query(query.sql, 600, query.bind(required))
    return time.perf_counter() - start


def _processor() -> float:
    """Return the processor time of this process and of those that answer its queries."""
    own = psutil.Process()
    used = [process.cpu_times() for process in (own, *own.children())]
    return sum(times.user + times.system for times in used)
