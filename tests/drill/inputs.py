"""Bad configurations, files and arguments: each must end in one clear error, or be right.

``python -m tests.drill.inputs --seed 1 --count 500 HOME`` tries them on copies of a home with a
completed run. Every command runs in a forked child, up to where the first stage or server would
start. Prints what ended in a traceback, without an end, or without a word; ends with 1 where
something did.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from unittest import mock

import duckdb  # noqa: F401  (heavy modules are imported once, before the forks)

import flows.commands.launch
import flows.stack.supervisor  # noqa: F401
from flows.cli import main as real
from real_tasks.experiment.yaml_files import load_prepared
from tests.drill.__main__ import say
from tests.drill.bad_inputs import Case, cases

LIMIT_S = 60.0
LONGEST = 6000
"""Characters of an error that somebody still reads."""
MEMORY = 12 * 2**30


def tried(case: Case, home: Path) -> tuple[str, str]:
    """Run a case in a child, and return how it ended and what it said."""
    with tempfile.TemporaryDirectory(prefix="inputs-") as name:
        folder = Path(name)
        shutil.copytree(home, folder / ".real", copy_function=_copied)
        for file, content in case.files.items():
            (folder / file).write_bytes(content)
        said = folder / "said"
        child = os.fork()
        if child == 0:
            _act(case, folder, said)
        status = _ended(child)
        text = said.read_text(errors="replace")
    if status is None:
        return "hang", text
    if "Traceback (most recent call last)" in text or status not in (0, 1, 2):
        return "traceback", text
    if status == 0:
        return "accepted", text
    return ("error" if text.strip() and len(text) < LONGEST else "unclear"), text


def _copied(source: str, target: str) -> None:
    """Copy a file; artifacts never change in place, so that a link does."""
    (os.link if "/artifacts/" in source else shutil.copy2)(source, target)


def _act(case: Case, folder: Path, said: Path) -> None:
    """Be the command, and end."""
    status = 99
    try:
        os.setsid()
        os.chdir(folder)
        handle = os.open(said, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.pop("REAL_HOME", None)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        with (
            mock.patch("flows.commands.launch._run", side_effect=SystemExit(0)),
            mock.patch("flows.stack.supervisor.run_stack", side_effect=SystemExit(0)),
            mock.patch("real_tasks.tasks.model_here._made", side_effect=SystemExit(0)),
        ):
            real(list(case.arguments))
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # what a person would see
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _ended(child: int) -> int | None:
    """Wait for a child; None where it has to be killed."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with suppress(ProcessLookupError):
                os.killpg(child, 9)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, 9)
    os.waitpid(child, 0)
    return None


def main() -> None:
    """Try as many as are asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="with a completed run; it is copied")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--accepted", action="store_true", help="show what is accepted as well")
    given = parser.parse_args()
    load_prepared(None, [])  # Registries, torch and transformers are in memory before the forks.
    found: Counter[str] = Counter()
    wrong = 0
    for number, case in enumerate(cases(Random(given.seed), given.count)):
        how, text = tried(case, given.home)
        found[f"{case.kind}: {how}"] += 1
        lost = how in ("hang", "traceback", "unclear") or (how == "accepted" and case.wrong)
        wrong += lost
        if lost or (given.accepted and how == "accepted"):
            shown = " ".join(map(ascii, case.arguments))[:400]
            say(f"{number} {how}{' though wrong' * (how == 'accepted' and case.wrong)}: {shown}")
            files = {name: content[:200] for name, content in case.files.items()}
            say(f"   {files}\n   {text.strip()[-(1500 if lost else 200) :]}")
    for name, count in sorted(found.items()):
        say(f"{name:<40} {count:>4}")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
