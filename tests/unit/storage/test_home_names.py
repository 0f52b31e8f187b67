"""What may be the home, and homes whose names mean something to URLs, globs or shells."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from flows.cli import main
from flows.terminal.environment import use_home
from storage.errors import StorageError
from storage.paths import Home, sqlite_url
from storage.sql.catalog import Catalog
from storage.tables.parquet import write_table
from storage.tracking.tracker import Tracker

NAMES = ["q?a=b", "#x", "50%20", "a b", "[*]", "ünï", 'it\'s "so"', "a&uri=true", "?#%"]


@pytest.mark.parametrize("name", NAMES)
def test_everything_of_a_home_of_any_name_is_in_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REAL_MLFLOW_URI", raising=False)
    elsewhere = tmp_path / "working-folder"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    home = Home(tmp_path / name / "home")
    note = elsewhere.with_name("note.txt")
    note.write_text("a note")
    tracker = Tracker(home)
    tracker.log_artifacts(run_id := tracker.start_run("demo", "r", {}), [note])
    assert [p.read_text() for p in home.mlflow.rglob(f"{run_id}/**/note.txt")] == ["a note"]
    write_table(home, "samples", "s", [])
    assert Catalog(home).query("SELECT count(*) AS n FROM mlflow_runs").to_pylist() == [{"n": 1}]
    assert Catalog(home).query("SELECT count(*) AS n FROM samples").to_pylist() == [{"n": 0}]
    assert home.mlflow_place == str(home.mlflow / "mlflow.db")
    assert list(elsewhere.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {name, "working-folder", "note.txt"}


@pytest.mark.parametrize("name", NAMES)
def test_the_url_of_a_database_leads_to_its_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "x.db"
    path.parent.mkdir()
    with create_engine(sqlite_url(path)).begin() as connection:
        connection.execute(text("CREATE TABLE here (a INTEGER)"))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("here",)]
    assert [found.name for found in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: folder / "file", "no folder"),
        (lambda folder: folder / "file" / "below", "Not a directory"),
        (lambda folder: folder / ("x" * 300), "File name too long"),
        (lambda folder: folder.joinpath(*["x" * 200] * 20), "File name too long"),
        (lambda folder: folder / "a\0b", "null byte"),
        (lambda folder: folder / os.fsdecode(b"\xff"), "codec"),
    ],
)
def test_what_cannot_be_a_home_is_refused_in_words(
    tmp_path: Path, make: object, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL_HOME", "before")
    (tmp_path / "file").write_text("")
    assert callable(make)
    with pytest.raises(StorageError, match=f"cannot be the home .*{why}.*--home"):
        use_home(make(tmp_path))


@pytest.mark.parametrize("command", [["sql", "FROM runs"], ["status"], ["report"], ["compact"]])
def test_an_empty_home_is_not_the_current_folder(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--home", ""])
    assert "it is empty" in capsys.readouterr().err
