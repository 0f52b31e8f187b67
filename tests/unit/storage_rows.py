"""What tests of the store keep in it: rows of runs, artifacts of two files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def run_row(
    run_id: str, status: str = "running", minutes: int = 0, **changes: Any
) -> dict[str, Any]:
    """A row of ``runs`` that began so many minutes after `START`, and ended an hour after it."""
    row = {
        "run_id": run_id,
        "started_at": START + timedelta(minutes=minutes),
        "flow": "experiment",
        "finished_at": None if status == "running" else START + timedelta(hours=1),
        "status": status,
        "model": "m",
        "model_id": "0",
        "behaviour": "b",
        "seed": 42,
        "config_digest": "d",
        "git_commit": None,
        "mlflow_run_id": None,
    }
    return row | changes


def writing(text: str, **facts: Any) -> Any:
    """A maker of an artifact with a file in a folder, and one beside it."""

    def write(folder: Path) -> dict[str, Any]:
        (folder / "part").mkdir()
        (folder / "part" / "a.txt").write_text(text)
        (folder / "b.txt").write_text("b")
        return facts

    return write


def never(folder: Path) -> dict[str, Any]:
    """A maker of an artifact that must not be asked."""
    raise AssertionError("it was made already")
