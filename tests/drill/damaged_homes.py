"""A home with runs of every flow, and commands on damaged copies of it, in this process."""

import io
import logging
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flows.cli import in_words, main
from storage.paths import HOME_VARIABLE, STORE_VARIABLE, Home
from storage.sql.catalog import Catalog
from storage.stack_state import ProcessMark, StackState, write_state
from storage.tables.schemas import TABLES
from tests.terminal import SMALL

SETTINGS = tuple(part for setting in SMALL for part in ("--set", setting))
OTHER = ("--set", "evaluation.alphas=[2.0]")
TRANSFER = tuple(
    part
    for setting in ("behaviours=[demo_truth, demo_options]", *SMALL)
    if not setting.startswith(("methods", "baselines"))
    for part in ("--set", setting)
)

Contents = dict[tuple[str, str], list[str]]
"""Rows by table and run, as texts in a fixed order; '' is the run of rows that have none."""


@dataclass(frozen=True)
class Answer:
    """What a command said, how it ended (None: an error without words), what it made."""

    status: int | None
    said: str
    result: object


@dataclass
class Base:
    """A sound home, what its tables hold, and what commands answer on it."""

    folder: Path
    contents: Contents
    runs: list[str]
    answers: dict[tuple[str, bool], Answer] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"


def made(folder: Path) -> Base:
    """Make the home: two experiments that were merged, then a run of each flow, then one more."""
    home = Home(folder / "base/home")
    with current(home, home.root.parent / "store"):
        for arguments in (
            ("run", *SETTINGS),
            ("run", *SETTINGS, *OTHER),
            ("compact", "--older-than-days", "0", "--min-parts", "1"),
            ("transfer", *TRANSFER),
            ("rescore",),
            ("run", *SETTINGS),
        ):
            answer = spoken(partial(main, list(arguments)))
            assert answer.status == 0, answer.said
        mark = ProcessMark(name="supervisor", pid=999_999_999, birth="never")
        write_state(
            home,
            StackState(
                stack_id="0",
                supervisor=mark,
                started_at=datetime.now(UTC),
                prefect_url="http://127.0.0.1:1",
                mlflow_url="http://127.0.0.1:2",
                processes=(mark,),
            ),
        )
        found = contents(home)
    runs = sorted({run for _, run in found if run})
    return Base(home.root.parent, found, runs)


def contents(home: Home) -> Contents:
    """Return what tables hold."""
    catalog, found = Catalog(home), Contents()
    for name, table in TABLES.items():
        rows = catalog.query(f"FROM {name} ORDER BY ALL").to_pylist()
        for row in rows if "run_id" in table.schema.names else []:
            found.setdefault((name, row.pop("run_id")), []).append(str(row))
        if "run_id" not in table.schema.names:
            found[name, ""] = [str(row) for row in rows]
    return found


@contextmanager
def current(home: Home, store: Path | None) -> Iterator[None]:
    """Make a home and a store the current ones of this process."""
    before = dict(os.environ)
    os.environ |= {HOME_VARIABLE: str(home.root), "COLUMNS": "400"}
    if store is not None:
        os.environ[STORE_VARIABLE] = str(store)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def spoken(command: Callable[[], object], result: Callable[[], object] = lambda: None) -> Answer:
    """Run a command here; return what it said, its logs and warnings included."""
    words = io.StringIO()
    handler = logging.StreamHandler(words)
    logging.getLogger().addHandler(handler)
    status: int | None = 0
    made: object = None
    try:
        with redirect_stdout(words), redirect_stderr(words):
            for step in (command, result):
                try:
                    made = step() if status == 0 else None
                except SystemExit as end:
                    status = end.code if isinstance(end.code, int) else 0
                except Exception as error:
                    found = in_words(error)
                    status = None if found is None else found[1]
                    words.write(found[0] if found else traceback.format_exc())
    finally:
        logging.getLogger().removeHandler(handler)
    return Answer(status, words.getvalue(), made)


@contextmanager
def copied(base: Base, folder: Path, with_store: bool) -> Iterator[Home]:
    """Give a copy of the home, and of its store where that is used, as the current one."""
    root, store = folder / "home", folder / "store"
    shutil.copytree(base.home, root)
    if with_store:
        shutil.copytree(base.folder / "store", store)
        (known,) = (root / "shared").iterdir()
        known.rename(Home(root, str(store)).shared)
    home = Home(root, str(store) if with_store else None)
    with current(home, store if with_store else None):
        yield home
