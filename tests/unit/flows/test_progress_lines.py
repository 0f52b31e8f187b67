"""Progress without a terminal: a line where a stage starts and ends, and none for long never."""

import re
import time

import pytest

from flows.terminal import console
from flows.terminal.console import ProgressLines, progress_shown
from real_tasks.tasks.cache import progress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines of stderr without their times."""
    captured = capsys.readouterr()
    assert captured.out == "" and "\x1b" not in captured.err and "\r" not in captured.err
    found = [re.fullmatch(r" *\d+ s  (.*)", line) for line in captured.err.splitlines()]
    assert all(found), captured.err
    return [re.sub(r"in \d+ s", "in N s", match.group(1)) for match in found if match]


def test_a_stage_is_told_when_it_starts_and_once_when_it_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_shown():
        for done in (0, 1, 2):
            progress.report("scores", done, 2)
        # The training's steps come between, in units of their own.
        for done, total in ((0, 1), (300, 600), (600, 600), (1, 1)):
            progress.report("checkpoint", done, total)
    assert lines(capsys) == [
        "starting",
        "scores of modules: 0 of 2",
        "scores of modules: 2 of 2, done in N s",
        "model (training steps, if embedded): 0 of 1",
        "model (training steps, if embedded): 600 of 600, done in N s",
    ]


def test_what_takes_long_is_told_again_with_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ProgressLines()
    told.tell()
    assert lines(capsys) == ["starting"], "something has just been said"
    monkeypatch.setattr(console, "SECONDS_BETWEEN", 0.0)
    told.tell()
    told.show("activations", 0, 8)
    told.show("activations", 3, 8)
    told.tell()
    told.show("activations", 8, 8)
    told.tell()
    assert lines(capsys) == [
        "working",
        "activations to Parquet: 0 of 8",
        "activations to Parquet: 3 of 8",
        "activations to Parquet: 8 of 8, done in N s",
        "working",
    ]


def test_silence_is_broken_while_nothing_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN", 0.0)
    found: list[str] = []
    with progress_shown():
        deadline = time.monotonic() + 20
        while "working" not in found and time.monotonic() < deadline:
            time.sleep(0.05)
            found += lines(capsys)
    assert found[:2] == ["starting", "working"]
