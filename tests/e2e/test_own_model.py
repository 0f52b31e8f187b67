"""The command line as a user with a checkpoint and a question file of their own goes through it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from flows.cli import main
from tests.terminal import REAL, environment
from tests.unit.tiny_models import random_data, tiny_llama, tiny_tokenizer

SETTINGS = {
    "model.path": "model",
    "behaviour": "{name: jsonl, params: {path: questions.jsonl, name: mine}}",
    "evaluation.measures": "[multiple_choice]",
    "evaluation.neutral": "neutral.txt",
    "evaluation.top_k": "[2]",
    "evaluation.alphas": "[1.0]",
    "evaluation.max_kl": "100",
    "evaluation.matched_kl": "0.01",
    "methods": "[unsteered, real, caa]",
    "baselines": "[iti]",
    "seeds": "[0]",
    "localizer.params": "{units: 2, epochs: 1, prior_epochs: 1, cross_folds: 2}",
}


Done = subprocess.CompletedProcess[str]


@pytest.fixture
def real(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Runs a command of the project in the user's folder, within this process."""
    monkeypatch.setenv("REAL_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)

    def command(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        said = capsys.readouterr()
        return Done(arguments, int(ended.value.code or 0), *(" ".join(s.split()) for s in said))

    return command


def questions() -> list[str]:
    lines = []
    for question in random_data(n_questions=24, seed=3).questions:
        answers = {
            label: list(dict.fromkeys(a.text for a in question.answers if a.label == number))
            for number, label in enumerate(("violating", "aligned"))
        }
        answers["violating"] = [a for a in answers["violating"] if a not in answers["aligned"]]
        lines.append(json.dumps({"question": question.text, **answers}))
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Path:
    """A checkpoint, a question file, neutral text, and one run on them."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "home" / "prefect").mkdir(parents=True)
    shutil.copy(prefect_database, folder / "home" / "prefect" / "prefect.db")
    tiny_llama().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "questions.jsonl").write_text("\n".join(questions()) + "\n")
    texts = ["w1 w2 w3 w4 .", "w5 w6 w7 .", "w8 w9 w1 .", "w2 w4 w6 w8 ."]
    (folder / "neutral.txt").write_text("\n\n".join(texts))
    (folder / "mine.jsonl").write_text("\n".join([*questions(), "{"]) + "\n")
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    settings += ["--set", "behaviour.params.path=mine.jsonl", "--skip-bad"]
    ran = subprocess.run(
        [*REAL, "run", *settings],
        cwd=folder,
        env=environment(folder / "home"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "report" in ran.stdout
    assert "left out of the data: 1 bad line: line 25: invalid JSON" in ran.stdout
    return folder


def test_a_good_file_is_described(folder: Path, real: Callable[..., Done]) -> None:
    found = real("data", "check", "questions.jsonl")
    assert found.returncode == 0
    assert "24 questions" in found.stdout and "no problems" in found.stdout


def test_a_bad_line_is_named_and_can_be_skipped(folder: Path, real: Callable[..., Done]) -> None:
    lines = [*questions(), '{"question": "w1 ?", "aligned": []}', "{"]
    (folder / "bad.jsonl").write_text("\n".join(lines) + "\n")
    found = real("data", "check", "bad.jsonl")
    assert found.returncode == 1
    assert "line 25" in found.stdout and "line 26" in found.stdout
    bad = SETTINGS["behaviour"].replace("questions", "bad")
    changes = [part for n, v in SETTINGS.items() for part in ("--set", f"{n}={v}")]
    refused = real("run", *changes, "--set", f"behaviour={bad}")
    assert refused.returncode == 2 and "line 25" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_results_of_the_run_can_be_queried(folder: Path, real: Callable[..., Done]) -> None:
    query = "SELECT DISTINCT method FROM evaluations WHERE split = 'test' ORDER BY method"
    found = real("sql", query, "--format", "csv")
    assert found.stdout.split() == ["method", "caa", "real", "unsteered"]


def test_the_steered_model_is_taken_away_checked_and_loads_with_transformers(
    folder: Path, real: Callable[..., Done]
) -> None:
    made = real("export", "--to", "steered")
    assert made.returncode == 0, made.stdout + made.stderr
    model = AutoModelForCausalLM.from_pretrained(folder / "steered")
    biases = [p for n, p in model.named_parameters() if n.endswith("o_proj.bias")]
    assert biases and any(bool((bias != 0).any()) for bias in biases)
    assert real("export", "--check", "steered").returncode == 0
    unsteered = real("export", "--check", "model", "--parity", "steered/real_parity.json")
    assert unsteered.returncode == 1 and "unsteered" in unsteered.stdout.lower()


def test_a_checkpoint_that_is_not_there_is_an_error_that_says_what_to_do(
    folder: Path, real: Callable[..., Done]
) -> None:
    found = real("run", "--set", "model.path=./nowhere")
    assert found.returncode == 2
    assert "nowhere" in found.stderr and "Traceback" not in found.stderr
