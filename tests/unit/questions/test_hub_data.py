"""Hub data sets: the library's answer, what was downloaded before, or how to get it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from real_tasks.questions.files import hub
from real_tasks.questions.files.hub import hub_records
from real_tasks.vocabulary.errors import UserInputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
configs:
- config_name: short
  data_files:
  - split: validation
    path: short/validation-*
---
"""
PROGRAM = """
import json
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.questions.files.hub import hub_records
try:
    print(json.dumps(hub_records("org/questions", "short", "validation")))
except UserInputError as error:
    print(json.dumps(str(error)))
"""


def test_the_library_is_asked_for_subset_split_and_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(*args: Any, **kwargs: Any) -> list[dict[str, str]]:
        asked.append((args, kwargs))
        return [{"question": "Why?"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert hub_records("org/name", "sub", "test", "v1") == [{"question": "Why?"}]
    assert asked == [(("org/name", "sub"), {"split": "test", "revision": "v1"})]


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UserInputError, match=r"pip install real-steering\[data\]"):
        hub_records("org/name", None, "test")


def offline(home: Path, variable: str) -> Any:
    """Run `PROGRAM` in a process of its own: the libraries read the environment when imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=kept | {"HF_HOME": str(home), variable: "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    return json.loads(found.stdout.splitlines()[-1])


def test_offline_without_a_download_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    told = offline(tmp_path, "HF_HUB_OFFLINE")
    assert "hf download --repo-type dataset org/questions" in told
    assert "HF_HOME" in told and "HF_HUB_OFFLINE" in told and "local file" in told


def test_offline_a_data_set_is_read_from_where_hf_download_keeps_it(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "datasets--org--questions"
    folder = repo / "snapshots" / COMMIT
    (folder / "short").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (folder / "README.md").write_text(CARD)
    records = [{"question": "Why?", "targets": {"choices": ["so"], "labels": [1]}}]
    pd.DataFrame(records).to_parquet(folder / "short" / "validation-00000-of-00001.parquet")
    assert offline(tmp_path, "HF_HUB_OFFLINE") == records
