"""A steered model in MLflow's registry, and served by MLflow in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from real_tasks.tasks.export.exporting import export_run
from tests.unit.tasks.test_export_runs import RUN, make_run

START_SECONDS = 150
PROMPTS = ["Q: w1 w2 ? A:", "Q: w30 w4 w5 w9 ? A:"]


@contextmanager
def served(uri: str, tracking_uri: str, log: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri]
    command += ["--env-manager", "local", "--port", str(port), "--host", "127.0.0.1"]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, cwd=log.parent, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, log)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/ping", timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


@torch.no_grad()
def by_transformers(folder: Path, prompt: str, n: int) -> str:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(prompt, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=n, do_sample=False, pad_token_id=0)
    new = tokens[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_mlflow_serves_the_steered_model(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made = make_run(tmp_path, embedded=True)
    baked = tmp_path / "baked"
    made.export(baked, "checkpoint")
    exported = export_run(made.home, RUN, None, None, "mlflow")
    again = export_run(made.home, RUN, None, None, "mlflow")
    assert exported.location == "models:/tiny-demo_truth-real/1"
    assert again.location == "models:/tiny-demo_truth-real/2"
    assert f"mlflow models serve -m {exported.location}" in exported.snippet
    # All of it is in the home, nothing in the folder that somebody happens to stand in.
    assert not list(Path.cwd().iterdir())
    assert len(list(made.home.mlflow.glob("artifacts/**/MLmodel"))) == 2
    question = {"dataframe_split": {"columns": ["prompt"], "data": [[p] for p in PROMPTS]}}
    with served(exported.location, made.home.mlflow_uri, tmp_path / "serve.log") as url:
        found = ask(url, question | {"params": {"max_new_tokens": 6}})
        shorter = ask(url, question | {"params": {"max_new_tokens": 2}})
    assert found == [by_transformers(baked, prompt, 6) for prompt in PROMPTS]
    assert found != [by_transformers(made.checkpoint, prompt, 6) for prompt in PROMPTS]
    assert [len(text.split()) for text in shorter] == [2, 2]


def ask(url: str, body: dict[str, Any]) -> list[str]:
    response = httpx.post(f"{url}/invocations", json=body, timeout=60)
    assert response.is_success, response.text
    predictions: list[str] = json.loads(response.text)["predictions"]
    return predictions
