"""Shared set-up: the order of files, one torch thread, a home for every test that asks for one."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flows.terminal.environment import use_home

LONGEST = Path(__file__).parent / "e2e" / "test_up.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the file that takes longest, which has few tests; then those with most tests."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path != LONGEST, -tests[item.path]))


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Small operations on busy cores are slower with several threads."""
    torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty home the current one."""
    monkeypatch.setenv("REAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run one temporary Prefect server for all flow tests."""
    use_home(None)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=300),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield
