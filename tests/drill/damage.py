"""Damage a home: a file of each kind in each way, then a command on it.

Run as ``python -m tests.drill.damage --seed 1 --n 200`` (Linux). What a command makes of the damage
is one of `GOOD` or of `BAD`; a table says how often, and of what is bad all that repeats it.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from random import Random

from flows.clean import clean
from flows.cli import main as real
from flows.compare import compare
from flows.terminal.environment import use_home
from real_tasks.tasks.upkeep.cleaning import CleanConfig
from storage.paths import Home
from tests.drill.damaged_homes import (
    SETTINGS,
    TRANSFER,
    Answer,
    Base,
    contents,
    copied,
    made,
    spoken,
)
from tests.drill.harm import DAMAGES, KINDS, OF_STORES, harmed

GOOD = ("as before", "left out with a warning", "one clear error")
BAD = ("SILENT", "UNNAMED", "TRACEBACK")
TIMED = ("runs", "stage_timings", "samples")
VIEWS = (
    "SELECT run_id, status, finished_at FROM runs ORDER BY ALL",
    "SELECT run_id, count(*), sum(value) FROM evaluations GROUP BY ALL ORDER BY ALL",
    "SELECT run_id, count(*), sum(score) FROM module_scores GROUP BY ALL ORDER BY ALL",
    "SELECT layer, count(*), sum(list_sum(head_01)) FROM activations GROUP BY ALL ORDER BY ALL",
    "SELECT run_id, status, metric, value FROM mlflow_runs ORDER BY ALL",
)


Command = Callable[[Home, Base], Answer]


@dataclass(frozen=True)
class Case:
    """A file's kind, its damage, the command that meets it, and what chance draws."""

    kind: str
    damage: str
    command: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a case: the damaged file, one of `GOOD` and `BAD`, and what was said."""

    path: Path
    verdict: str
    said: str


def _rows_of_new_run(*arguments: str) -> Command:
    def command(home: Home, _: Base) -> Answer:
        before = {path.name for path in home.runs.glob("2*")}

        def rows() -> object:
            (new,) = {path.name for path in home.runs.glob("2*")} - before
            found = contents(home).items()
            return {t: rows for (t, run), rows in found if run == new and t not in TIMED}

        return spoken(lambda: real(list(arguments)), rows)

    return command


def _report(number: int) -> Command:
    def command(home: Home, base: Base) -> Answer:
        page = home.runs / base.runs[number] / "report.html"
        return spoken(lambda: real(["report", base.runs[number]]), page.read_text)

    return command


def _sql(_home: Home, _base: Base) -> Answer:
    answers = [spoken(partial(real, ["sql", view, "--format", "json"])) for view in VIEWS]
    said = "\n".join(answer.said for answer in answers)
    bad = [answer for answer in answers if answer.status != 0]
    return Answer(bad[0].status if bad else 0, said, said)


def _export(home: Home, _: Base) -> Answer:
    to = home.root.parent / "spec"

    def files() -> object:
        return {path.name: path.read_bytes() for path in to.rglob("steering.*")}

    return spoken(lambda: real(["export", "--format", "spec", "--to", str(to)]), files)


def _status(_home: Home, _base: Base) -> Answer:
    answer = spoken(lambda: real(["status"]))
    runs = [line for line in answer.said.splitlines() if re.match(r"\W*2\d{7}-", line)]
    return Answer(answer.status, answer.said, runs)


COMMANDS: Mapping[str, Command] = {
    "sql": _sql,
    "status": _status,
    "report": _report(-1),
    "report of a merged run": _report(0),
    "report of a transfer": _report(2),
    "report of a re-scoring": _report(3),
    "export": _export,
    "compact": lambda _home, _base: spoken(
        lambda: real(["compact", "--older-than-days", "0", "--min-parts", "1"])
    ),
    "clean": lambda _home, _base: spoken(lambda: clean(CleanConfig(dry_run=False))),
    "compare": lambda _home, _base: spoken(compare),
    "rescore": _rows_of_new_run("rescore"),
    "run": _rows_of_new_run("run", *SETTINGS),
    "transfer": _rows_of_new_run("transfer", *TRANSFER),
    "down": lambda _home, _base: spoken(lambda: real(["down"])),
}


OF_FLOWS = ("clean", "compare", "rescore", "run", "transfer")
READING = ("sql", "status", "export", "down")


def main() -> None:
    """Try the cases that the seed draws, or those that are named; print what came of them."""
    heed_rights()
    arguments = parsed()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="damage-") as folder, served():
        base = made(Path(folder))
        say(f"a home with {len(base.runs)} runs was made in {time.monotonic() - begun:.0f} s")
        found: Counter[str] = Counter()
        for case in drawn(arguments):
            outcome = tried(base, case, Path(folder))
            if outcome is not None:
                found[outcome.verdict] += 1
                if outcome.verdict in BAD or arguments.every:
                    say(f"{outcome.verdict}: {case} {outcome.path}")
                    say(outcome.said[-arguments.tail :])
    for verdict in (*GOOD, *BAD):
        say(f"{verdict:<24} {found[verdict]:>5}")
    say(f"seed {arguments.seed}, {(time.monotonic() - begun) / 60:.0f} min")
    raise SystemExit(1 if any(found[verdict] for verdict in BAD) else 0)


def heed_rights() -> None:
    """Begin again as a root whom rights of files bind as all others."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(0)
        if os.access(file.name, os.R_OK):
            without = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
            os.execvp(
                without[0], [*without, sys.executable, "-m", "tests.drill.damage", *sys.argv[1:]]
            )


@contextmanager
def served() -> Iterator[None]:
    """Run one Prefect server for all flows."""
    use_home(None)
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        yield


def parsed() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=200, help="cases")
    parser.add_argument("--kind", choices=KINDS, help="files of this kind alone")
    parser.add_argument("--damage", choices=DAMAGES, help="this damage alone")
    parser.add_argument("--command", choices=COMMANDS, help="this command alone")
    parser.add_argument("--every", action="store_true", help="say what is good as well")
    parser.add_argument("--tail", type=int, default=1500, help="characters of what was said")
    return parser.parse_args()


def drawn(arguments: argparse.Namespace) -> list[Case]:
    """Return cases in an order by chance, no two alike; a case that is named as often as asked."""
    draw = Random(arguments.seed)
    chosen = [
        [one] if one else list(every)
        for one, every in (
            (arguments.kind, KINDS),
            (arguments.damage, DAMAGES),
            (arguments.command, COMMANDS),
        )
    ]
    every = [
        Case(kind, damage, command, draw.randrange(10**6))
        for kind, damage, command in product(*chosen)
    ]
    draw.shuffle(every)
    return every[: arguments.n]


def tried(base: Base, case: Case, folder: Path) -> Outcome | None:
    """Do the damage on a copy, then the command; None where no file can be damaged so."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        with copied(base, place, with_store=case.kind in OF_STORES) as home:
            path = harmed(home.root, case.kind, case.damage, Random(case.seed))
            if path is None:
                return None
            answer = COMMANDS[case.command](home, base)
            writes = case.command not in READING
            tables = spoken(lambda: None, lambda: contents(home) if writes else base.contents)
            return Outcome(path, verdict(home, path, case, answer, tables, base), answer.said)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def expected(base: Base, command: str, with_store: bool) -> Answer:
    """Return what a command answers on a sound home."""
    if (command, with_store) not in base.answers:
        place = Path(tempfile.mkdtemp(dir=base.folder.parent))
        with copied(base, place, with_store) as home:
            base.answers[command, with_store] = COMMANDS[command](home, base)
        assert base.answers[command, with_store].status == 0, base.answers[command, with_store].said
        shutil.rmtree(place)
    return base.answers[command, with_store]


def verdict(home: Home, path: Path, case: Case, answer: Answer, tables: Answer, base: Base) -> str:
    """Return what came of a case, one of `GOOD` or `BAD`."""
    said = re.sub(r"[\s│]", "", answer.said + tables.said)
    named = any(name in said for name in names_of(home, path))
    if None in (answer.status, tables.status) or "Traceback(mostrecent" in said:
        return "TRACEBACK"
    if answer.status or tables.status:
        return "one clear error" if named else "UNNAMED"
    sound = expected(base, case.command, case.kind in OF_STORES)
    if answer.result == sound.result and not lost(base, tables.result):
        return "as before"
    return "left out with a warning" if named else "SILENT"


def names_of(home: Home, path: Path) -> list[str]:
    """Return the names of a damaged file by any of which it may be named: itself, and its run."""
    parts = path.parts
    runs = [part for part in parts if re.match(r"2\d{7}-", part)]
    return [str(path), str(path.parent), *(Path(run).stem for run in runs)]


def lost(base: Base, found: object) -> list[tuple[str, str]]:
    """Return the tables and runs whose rows are not those of the sound home."""
    assert isinstance(found, dict)
    return [key for key, rows in base.contents.items() if found.get(key) != rows]


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True, file=sys.stdout)  # noqa: T201


if __name__ == "__main__":
    main()
