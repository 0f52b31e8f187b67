"""Terminals that are not UTF-8: what they cannot show is escaped."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli import main
from flows.stack import view
from flows.terminal import console
from real_tasks.tasks.cache.progress import report as progress
from storage.paths import Home
from storage.tables.parquet import write_table
from tests.terminal import REAL, environment

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
WORDS = "größe → 東京"
QUESTION = {"question": WORDS, "aligned": ["é"], "violating": ["ж"], "category": WORDS}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a home, whose one table holds text of other scripts, and questions in them."""
    row = {"run_id": "r", "method": "real", "fold": 0, "seed": 0, "question_id": "q"}
    said = {"question": WORDS, "generation": "é", "verdict": "true"}
    write_table(Home(tmp_path / "home"), "answers", "r", [row | said])
    lines = [json.dumps(QUESTION | {"question": f"{WORDS} {i}"}) for i in range(9)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("REAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_terminal(monkeypatch: pytest.MonkeyPatch, encoding: str) -> io.BytesIO:
    """Return what is written from now on, to a standard output and error of an encoding."""
    written = io.BytesIO()
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(written, encoding=encoding, write_through=True)
        monkeypatch.setattr(sys, name, stream)
    return written


COMMANDS = [
    ["sql", "FROM answers"],
    ["sql", "FROM answers", "--json"],
    ["sql", "--tables"],
    ["sql", f"SELECT * FROM answers WHERE {WORDS}"],
    ["data", "check", "q.jsonl"],
    ["data", "check", f"{WORDS}.jsonl"],
    ["status"],
    ["report"],
    ["config"],
    ["config", "--set", f"model.path={WORDS}"],
    ["plan", "--set", f"behaviour.params.path={WORDS}"],
    ["run", "--set", f"model.path={WORDS}"],
    ["export", WORDS],
    ["compare-rankings", WORDS],
    ["rescore", WORDS],
    ["transfer", "--set", f"behaviours=[{WORDS}]"],
    ["compact"],
    ["run", "--help"],
    ["up", "--help"],
]
PRINTING = COMMANDS[:5]


@pytest.mark.parametrize(
    ("encoding", "command"),
    [("ascii", one) for one in COMMANDS] + [("latin-1", one) for one in PRINTING],
)
def test_no_command_fails_at_what_a_terminal_cannot_show(
    place: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, command: list[str]
) -> None:
    shown = small_terminal(monkeypatch, encoding)
    with pytest.raises(SystemExit):
        main(command)
    # click takes a terminal of ASCII for one of UTF-8 whose locale does not say so.
    text = shown.getvalue().decode("utf-8" if encoding == "ascii" else encoding)
    assert text.strip() and "Traceback" not in text
    assert "東京" not in text or encoding == "ascii"


def test_tables_of_results_warnings_and_progress_are_shown_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = small_terminal(monkeypatch, "ascii")
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(errors="backslashreplace")
    metric = {"metric": "mc1", "unsteered": 0.25, "steered": 0.5, "gain": 0.25}
    console.show_results([{"method": WORDS, "mc1": 0.25, "kl": 0.0}])
    console.show_transfer([{"source": WORDS, "target": "é", "low": 0.1, "high": 0.4} | metric])
    console.show_warning(WORDS)
    console.show_error(WORDS)
    console.show_paths({"what": WORDS})
    for terminal in (False, True):
        monkeypatch.setattr(console, "err", Console(stderr=True, force_terminal=terminal))
        with console.progress_shown():
            progress(WORDS, 1, 1)
    text = shown.getvalue().decode("ascii")
    assert text.count("\\u6771") >= 6 and "+0.25" in text


def test_tables_lose_no_word_where_the_terminal_is_80_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    for module in (console, view):
        monkeypatch.setattr(module, "out", Console(file=shown, width=80))
    numbers = {"unsteered": 0.25, "steered": 0.5, "gain": 0.25, "low": 0.1, "high": 0.4}
    places = {"source": "demo_options", "target": "demo_truth", "metric": "true_share"}
    console.show_transfer([places | numbers])
    run = ("20261128-142914-86e6", "experiment", "smollm2", "everyday_myths", "completed")
    best = "MC1 0.98 (real_equal_weights), unsteered 0.41"
    view.show_last_runs([dict(zip("abcdef", (*run, best), strict=True))])
    words = shown.getvalue().split()
    assert {*run, "0.41", "generations", "demo_truth", "0.25", "0.50"} <= set(words)
    assert "…" not in shown.getvalue()


def test_a_file_that_a_locale_cannot_name_is_one_error(place: Path) -> None:
    (place / "größe.jsonl").write_text(json.dumps(QUESTION), encoding="utf-8")
    (place / "my.yaml").write_text(
        "behaviour: {name: jsonl, params: {path: größe.jsonl}}", encoding="utf-8"
    )
    command = [*REAL, "plan", "my.yaml"]
    done = subprocess.run(
        command, env=environment(place / "home", **ASCII), cwd=place, capture_output=True
    )
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert b"PYTHONUTF8=1" in done.stderr
