"""`real plan` as it is called, and the page of its numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from tests.benchmarks.capacity_page import tables

FOLDER = Path(__file__).parents[3] / "deployments"
LLAMA = str(FOLDER / "experiments/models/llama-2-7b-hf.yaml")
PAPER = str(FOLDER / "experiments/paper.yaml")
STATED = ["--questions", "800", "--answers-per-question", "7", "--tokens", "15"]


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status, out, err = called(capsys, *arguments, "--format", "json")
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


def test_a_model_and_data_that_are_not_there_are_planned_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = as_json(capsys, LLAMA, PAPER, *STATED, "--memory", "80")
    needs = {row["what"]: row["value"] for row in found["needs"]}
    assert needs["head modules"] == 1024
    assert needs["stored activations"] == 5600 * 1024 * 128 * 2
    assert needs["sample shards"] == 6
    assert needs["model"] == 6_738_415_616
    stages = {row["stage"]: row for row in found["stages"]}
    assert stages["activations"]["flops"] == 2.0 * needs["model"] * 5600 * 15
    assert (
        sum(row["tasks"] for name, row in stages.items() if name != "all")
        == (stages["all"]["tasks"])
    )
    assert found["warnings"] == []


def test_the_demo_is_planned_from_its_own_data(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys)
    assert status == 0
    assert "1,329 answers" in out and "FLOPs" in out and "evaluation" in out


def test_a_device_that_is_too_small_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    small = as_json(capsys, LLAMA, PAPER, *STATED, "--memory", "16")
    assert any("a device has 16 GB" in warning for warning in small["warnings"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "0"], "--memory is 0"),
        (["--format", "csv"], "choose --format table or json"),
        (["--questions", "-3"], "have to be positive"),
        (["--questions", "3", "--tokens", "nan"], "--tokens is nan"),
        (["--questions", "3", "--prompt-tokens", "inf"], "--prompt-tokens is inf"),
        (["--memory", "inf"], "--memory is inf"),
        (["--tokens", "12"], "give --questions as well"),
    ],
)
def test_wrong_input_is_an_error_with_the_mend(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = called(capsys, *arguments)
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_the_capacity_page_says_what_the_formulas_give() -> None:
    page = (FOLDER / "CAPACITY.md").read_text().splitlines()
    start, end = (
        next(i for i, line in enumerate(page) if line.startswith(mark))
        for mark in ("<!-- tables", "<!-- end of tables")
    )
    assert page[start + 1 : end] == list(tables())
