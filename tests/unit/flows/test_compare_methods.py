"""`real compare-methods` says how to make a run where there is none that was asked for."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.cli import main
from storage.paths import Home
from storage.tables.parquet import write_table
from storage.tables.schemas import TABLES


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(["compare-methods", *arguments])
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_without_a_run_it_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL_HOME", str(tmp_path))
    text = said(capsys)
    assert "no experiment is completed" in text
    assert "real run deployments/experiments/leaderboard.yaml" in text.replace("` ", "`")
    row = dict.fromkeys(TABLES["runs"].schema.names) | {
        **{"run_id": "r", "flow": "experiment", "status": "completed", "model": "m"},
        **{"behaviour": "truth", "seed": 0, "config_digest": "d"},
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    write_table(Home(tmp_path), "runs", "r", [row])
    assert "there are truth in m" in said(capsys, "--model", "other")
