"""The state of a stack: one a home, found by others, forgotten when it ends."""

import multiprocessing
import os
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.paths import Home
from storage.stack_state import (
    StackRunningError,
    check_no_stack,
    is_held,
    live_stack,
    only_stack,
    read_state,
    remove_state,
    write_state,
)
from storage.upkeep.usage import Usage, usage
from tests.unit.stack_states import some_state


@pytest.fixture
def store(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def hold(root: Path, held: Event, end: Event) -> None:
    with only_stack(Home(root)):
        write_state(Home(root), some_state())
        held.set()
        end.wait(30)
        os._exit(1)  # as if killed: nothing is cleaned up


def test_a_second_stack_of_a_home_is_refused_with_the_addresses_of_the_first(store: Home) -> None:
    context = multiprocessing.get_context("spawn")
    held, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(store.root, held, end))
    process.start()
    try:
        assert held.wait(30)
        for refuse in (lambda: check_no_stack(store), only_stack(store).__enter__):
            with pytest.raises(StackRunningError, match=r"127\.0\.0\.1:4200.*127\.0\.0\.1:5000"):
                refuse()
        assert live_stack(store) == some_state()
    finally:
        end.set()
        process.join()
    assert live_stack(store) is None, "its lock ended with its process"
    assert read_state(store) == some_state(), "what it left says what to clean up"
    with only_stack(store):
        assert is_held(store)
    assert not is_held(store)


def test_two_homes_have_a_stack_each(tmp_path: Path) -> None:
    with only_stack(Home(tmp_path / "a")), only_stack(Home(tmp_path / "b")):
        assert is_held(Home(tmp_path / "a"))


def test_only_the_owner_can_read_the_state_for_it_may_hold_a_password(store: Home) -> None:
    write_state(store, some_state())
    path = store.root / "stack" / "state.json"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_removed_state_is_forgotten(store: Home) -> None:
    write_state(store, some_state())
    remove_state(store)
    remove_state(store)
    assert read_state(store) is None


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"null", b"\xff\x00\xfe"])
def test_a_damaged_state_says_which_file_to_remove(store: Home, content: bytes) -> None:
    write_state(store, some_state())
    (store.root / "stack" / "state.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"state\.json is damaged.*remove the file"):
        read_state(store)


def test_a_home_without_a_stack_has_none_and_stays_as_it_is(store: Home) -> None:
    assert live_stack(store) is None
    assert not store.root.exists()


def test_usage_counts_artifacts_by_kind_tables_by_part_and_other_folders(store: Home) -> None:
    files = {
        "artifacts/activations/k1/a.parquet": 700,
        "artifacts/activations/k1/manifest.json": 50,
        "artifacts/activations/k2/a.parquet": 250,
        "tables/runs/r1.parquet": 30,
        "tables/runs/r2.parquet": 40,
        "mlflow/mlflow.db": 5,
    }
    for name, size in files.items():
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    assert usage(store) == [
        Usage("artifacts/activations", 2, 1000),
        Usage("tables/runs", 2, 70),
        Usage("mlflow", 1, 5),
    ]
    assert usage(Home(store.root / "nowhere")) == []
