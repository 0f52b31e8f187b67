"""A home that is copied, moved or renamed is a home of its own: it writes nothing elsewhere."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from storage.errors import StorageError
from storage.paths import Home
from storage.place import check_database, settle
from storage.tracking.tracker import Tracker


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Home, str]:
    """A home with a run that has an artifact, and the run's id."""
    monkeypatch.delenv("REAL_MLFLOW_URI", raising=False)
    home = Home(tmp_path / "first home")
    return home, _record(home, tmp_path, "first")


def _record(home: Home, tmp_path: Path, text: str) -> str:
    note = tmp_path / "note.txt"
    note.write_text(text)
    tracker = Tracker(home)
    run_id = tracker.start_run("demo", text, {})
    tracker.log_artifacts(run_id, [note])
    return run_id


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _artifact(home: Home, run_id: str, to: Path) -> str:
    to.mkdir()
    return Path(
        MlflowClient(home.mlflow_uri).download_artifacts(run_id, "note.txt", str(to))
    ).read_text()


def _everywhere(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump())


def test_a_copy_writes_nothing_into_the_original_and_finds_the_artifacts_it_came_with(
    used: tuple[Home, str], tmp_path: Path
) -> None:
    original, first = used
    before = _files(original.root)
    copy = Home(tmp_path / "copy é")
    shutil.copytree(original.root, copy.root)
    second = _record(copy, tmp_path, "second")
    assert _files(original.root) == before
    shutil.rmtree(original.root)
    assert _artifact(copy, first, tmp_path / "a") == "first"
    assert _artifact(copy, second, tmp_path / "b") == "second"
    assert not original.root.exists()
    assert original.root.as_uri() not in _everywhere(copy.mlflow / "mlflow.db")


def test_a_home_that_is_renamed_twice_goes_on(used: tuple[Home, str], tmp_path: Path) -> None:
    home, first = used
    for name in ("moved", "moved/again"):
        place = tmp_path / "folders" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        home = Home(Path(shutil.move(home.root, f"{place}-home")))
        second = _record(home, tmp_path, name)
        assert _artifact(home, second, tmp_path / f"second-{place.name}") == name
        assert _artifact(home, first, tmp_path / f"first-{place.name}") == "first"
    assert sorted(path.name for path in tmp_path.iterdir() if "first home" in path.name) == []


def test_a_copy_of_a_home_without_a_note_of_its_place_is_mended_too(
    used: tuple[Home, str], tmp_path: Path
) -> None:
    original, first = used
    (original.root / ".place").unlink()
    copy = Home(Path(shutil.copytree(original.root, tmp_path / "copy")))
    settle(copy)
    info = MlflowClient(copy.mlflow_uri).get_run(first).info
    assert info.artifact_uri == f"{copy.mlflow.as_uri()}/artifacts/{first}/artifacts"


def test_registered_models_and_results_in_prefect_move_along(
    used: tuple[Home, str], tmp_path: Path
) -> None:
    original, _ = used
    old = original.root
    with closing(sqlite3.connect(original.mlflow / "mlflow.db")) as connection, connection:
        connection.execute(
            "INSERT INTO registered_models (name, workspace) VALUES ('m', 'default')"
        )
        connection.execute(
            "INSERT INTO model_versions (name, version, source, storage_location, workspace) "
            "VALUES ('m', 1, ?, ?, 'default'), ('m', 2, ?, 'models:/m-1', 'default')",
            (f"{old}/mlflow/artifacts/m", f"{old.as_uri()}/mlflow/artifacts/m", f"{old}-2/model"),
        )
    original.prefect.mkdir()
    with closing(sqlite3.connect(original.prefect / "prefect.db")) as connection, connection:
        connection.execute("CREATE TABLE task_run_state (data TEXT)")
        connection.execute(
            "INSERT INTO task_run_state VALUES (?), ('null'), (NULL)",
            (f'{{"storage_key": "{old}/artifacts/scores/1"}}',),
        )
    copy = Home(Path(shutil.copytree(old, tmp_path / "copy")))
    settle(copy)
    with closing(sqlite3.connect(copy.mlflow / "mlflow.db")) as connection:
        rows = connection.execute(
            "SELECT source, storage_location FROM model_versions ORDER BY version"
        ).fetchall()
    assert rows == [
        (f"{copy.root}/mlflow/artifacts/m", f"{copy.root.as_uri()}/mlflow/artifacts/m"),
        (f"{old}-2/model", "models:/m-1"),
    ]
    with closing(sqlite3.connect(copy.prefect / "prefect.db")) as connection:
        states = connection.execute("SELECT data FROM task_run_state").fetchall()
    assert states == [(f'{{"storage_key": "{copy.root}/artifacts/scores/1"}}',), ("null",), (None,)]


@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_a_damaged_database_is_named(used: tuple[Home, str], tmp_path: Path, name: str) -> None:
    original, _ = used
    copy = Home(Path(shutil.copytree(original.root, tmp_path / "copy")))
    damaged = copy.root / name / f"{name}.db"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match=rf"{name}\.db cannot be used .*rename it"):
        settle(copy)


@pytest.mark.parametrize("note", ["null\n", "[1]", "\0\n", "relative\n", ""])
def test_a_damaged_note_of_the_place_is_written_anew(
    used: tuple[Home, str], tmp_path: Path, note: str
) -> None:
    original, first = used
    copy = Home(Path(shutil.copytree(original.root, tmp_path / "copy")))
    (copy.root / ".place").write_text(note)
    settle(copy)
    assert _artifact(copy, first, tmp_path / "a") == "first"
    assert (copy.root / ".place").read_text() == f"{copy.root}\n"


def test_a_note_that_was_cut_off_moves_nothing_to_a_place_that_is_none(
    used: tuple[Home, str], tmp_path: Path
) -> None:
    home, first = used
    (home.root / ".place").write_text(str(home.root.parent))  # a folder above, by accident
    settle(home)
    assert _artifact(home, first, tmp_path / "a") == "first"


def test_a_database_that_is_none_is_told_before_a_server_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "prefect.db"
    check_database(path)
    path.touch()
    check_database(path)  # an empty one is filled
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(StorageError, match=r"prefect\.db cannot be used .*rename it"):
        check_database(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match=r"prefect\.db cannot be used"):
        check_database(path)
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere" / "at all")
    with pytest.raises(StorageError, match=r"prefect\.db cannot be used"):
        check_database(path)
