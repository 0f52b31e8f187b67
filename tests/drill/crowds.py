"""Runs at once on one home, beside readers."""

import subprocess
from threading import Event, Thread

from storage.paths import Home
from storage.sql.catalog import Catalog
from tests.drill.homes import (
    Undisturbed,
    check_all,
    check_left,
    contents,
    require,
    runs,
    tail,
    variables,
)
from tests.terminal import REAL, ROOT, RUN

READERS = 2
CHECK = """
SELECT run_id, any_value(status) AS status, count(module_scores.score) AS n
FROM runs LEFT JOIN module_scores USING (run_id) GROUP BY run_id
"""


def crowd(home: Home, undisturbed: Undisturbed, count: int) -> None:
    """Have ``count`` runs complete at once: readers see of each all scores or none."""
    stop, wrong = Event(), list[str]()
    n_scores = len(undisturbed.contents["module_scores"])
    readers = [Thread(target=_read, args=(home, n_scores, stop, wrong)) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    try:
        processes = [
            subprocess.Popen(
                [*REAL, *RUN],
                env=variables(home),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(count)
        ]
        said = [process.communicate()[0] for process in processes]
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    for process, text in zip(processes, said, strict=True):
        require(process.returncode == 0, f"a run ended with {process.returncode}: {tail(text)}")
    require(not wrong, f"a reader: {wrong[:1]}")
    names = [run["run_id"] for run in runs(home)]
    require(len(names) == count, f"{count} runs completed, SQL shows {len(names)}")
    for name in names:
        require(contents(home, name) == undisturbed.contents, f"the numbers of {name} are others")
    check_all(home, undisturbed)
    check_left(home)


def _read(home: Home, n_scores: int, stop: Event, wrong: list[str]) -> None:
    while not stop.wait(0.2):
        try:
            rows = Catalog(home).query(CHECK).to_pylist()
        except Exception as error:
            wrong.append(repr(error))
            return
        wrong += [str(row) for row in rows if row["n"] not in (0, n_scores)]
