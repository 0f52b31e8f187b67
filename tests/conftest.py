"""Shared set-up: the order of files, one torch thread, a home for every test that asks for one."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from flows.terminal.environment import use_home
from real_tasks.report.figures.style import png_bytes
from storage.locks import locked
from storage.tracking.tracker import Tracker, _settle_mlflow
from tests.terminal import environment

TESTS = Path(__file__).parent
LONGEST = TESTS / "e2e" / "test_up.py"
TIMES_A_UNIT = {"e2e": 100, "flows": 50, "contract": 2}
"""How many times as long as a unit's a test of a folder takes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no worker ends with one while others idle."""
    took: Counter[Path] = Counter()
    for item in items:
        took[item.path] += TIMES_A_UNIT.get(item.path.relative_to(TESTS).parts[0], 1)
    items.sort(key=lambda item: (item.path != LONGEST, -took[item.path], item.path))


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Small operations on busy cores are slower with several threads."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def mlflow_tables_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copy the tables of every new home, which MLflow makes in over a second, from the first's.

    Tests that start processes have them made there.
    """
    kept = tmp_path_factory.mktemp("mlflow") / "tables.db"
    with_tables = Tracker._make_tables

    def made_or_copied(tracker: Tracker, uri: str) -> None:
        _settle_mlflow()
        from mlflow.store.db import utils  # which most tests do without

        make = utils._initialize_tables

        def tables(engine: Any) -> None:
            if not copied:
                make(engine)
            with closing(engine.raw_connection()) as new, closing(sqlite3.connect(kept)) as copy:
                if copied:
                    copy.backup(new.driver_connection)
                else:
                    new.driver_connection.backup(copy)

        copied = kept.exists()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "_initialize_tables", tables)
            with_tables(tracker, uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "_make_tables", made_or_copied)
        yield


@pytest.fixture(scope="module")
def unrendered() -> Iterator[None]:
    """Render an empty figure in the place of each that is drawn: rendering takes longest.

    Figures' own tests render them, and so do runs of commands.
    """
    empty = png_bytes(Figure(figsize=(1, 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda _figure, buffer, **_: buffer.write(empty))
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty home the current one."""
    monkeypatch.setenv("REAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a Prefect server that has served nothing, to be copied into homes.

    A server makes it in 5 s of computing; all workers of pytest use one.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "databases"
    with locked(folder / ".lock"):
        if not (folder / "prefect.db").exists():
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            own = environment(folder, PREFECT_HOME=str(folder / "making"), DO_NOT_TRACK="1")
            subprocess.run(command, env=own, check=True, stdout=subprocess.DEVNULL)
            (folder / "making" / "prefect.db").replace(folder / "prefect.db")
    return folder / "prefect.db"


@pytest.fixture(scope="session")
def prefect_server(
    tmp_path_factory: pytest.TempPathFactory, prefect_database: Path
) -> Iterator[None]:
    """Run one temporary Prefect server for all flow tests."""
    use_home(None)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    folder = tmp_path_factory.mktemp("prefect")
    shutil.copy(prefect_database, folder / "prefect-test.db")
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(folder))
        with prefect_test_harness(server_startup_timeout=300):
            yield
