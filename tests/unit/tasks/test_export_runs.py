"""Exports of a run: from its folder and tables to a folder that somebody takes away."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from real_tasks.experiment.commented import commented_yaml
from real_tasks.experiment.yaml_files import load_config
from real_tasks.export.parity import Parity
from real_tasks.models import adapters
from real_tasks.models.identity import weights_fingerprint
from real_tasks.steering.operators import OPERATORS
from real_tasks.steering.spec import SteeringSpec
from real_tasks.tasks.cache.stage import store
from real_tasks.tasks.export import steered_runs
from real_tasks.tasks.export.exporting import check_export, export_run
from real_tasks.tasks.stages import references
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleId
from storage.artifacts.store import ArtifactRef
from storage.errors import StorageError
from storage.paths import Home
from storage.runs.run import now, run_folder, write_run
from storage.tables.parquet import write_table
from tests.unit.tiny_models import random_data, tiny_family, tiny_tokenizer

RUN = "20270101-000000-abcd"
MODULES = (ModuleId("head", 2, 3), ModuleId("head", 0, 1), ModuleId("head", 2, 0))


@dataclass
class Made:
    """A home with one completed run, and the checkpoint of its model."""

    home: Home
    checkpoint: Path

    def export(self, to: Path, format: Any = "spec", **which: Any) -> Any:
        return export_run(
            self.home, **{"run_id": RUN, "method": None, **which}, to=to, format=format
        )


def tiny_model(seed: int = 0) -> PreTrainedModel:
    return tiny_family("mistral", seed=seed, sliding_window=None, head_dim=8)


def a_spec(model: torch.nn.Module, seed: int = 0, **changes: Any) -> SteeringSpec:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(3, 8, generator=generator)
    values: dict[str, Any] = {
        "model": "tiny",
        "model_digest": "sha256:abc",
        "modules": MODULES,
        "directions": directions / directions.norm(dim=1, keepdim=True),
        "sigmas": torch.rand(3, generator=generator) + 0.5,
        "strengths": torch.tensor([1.0, 0.9, 0.5]),
        "alpha": 4.0,
        "token_scope": "all",
        "shape": ModelShape(3, 4, 8, 32),
        "weights": weights_fingerprint(model),
    }
    return SteeringSpec.adding(**values | changes)


def an_artifact(kind: str, facts: dict[str, Any], files: dict[str, bytes]) -> ArtifactRef:
    def write(folder: Path) -> dict[str, Any]:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return facts

    return store().make(kind, "0" * 64, write)


def evaluation_rows() -> list[dict[str, Any]]:
    """MC1 rises by 0.25 in fold 0 and 0.35 in fold 1, KL to 0.04."""
    rows = []
    for fold in (0, 1):
        for method, top_k, alpha, mc1, kl in (
            ("unsteered", None, None, 0.4, 0.0),
            ("real", 3, 4.0, 0.65 + 0.1 * fold, 0.04),
        ):
            for metric, value in (("mc1", mc1), ("kl", kl)):
                rows.append(
                    {
                        "run_id": RUN,
                        "model": "tiny",
                        "model_id": "0",
                        "behaviour": "demo_truth",
                        "method": method,
                        "fold": fold,
                        "seed": 0,
                        "split": "test",
                        "top_k": top_k,
                        "alpha": alpha,
                        "token_scope": "all",
                        "metric": metric,
                        "value": value,
                    }
                )
    return rows


def write_tables(home: Home) -> None:
    write_table(home, "evaluations", RUN, evaluation_rows())
    difference = {"difference": 0.3, "low": 0.21, "high": 0.39, "n_questions": 60}
    compared = {"baseline": "unsteered", "basis": "tuned", "metric": "mc1"}
    names = {"run_id": RUN, "behaviour": "demo_truth", "method": "real"}
    write_table(home, "comparisons", RUN, [names | compared | difference])
    selected = [
        {
            "run_id": RUN,
            "method": "real",
            "fold": 0,
            "seed": 0,
            "module_kind": "head",
            "layer": module.layer,
            "head": module.head,
            "rank": rank,
            "score": 0.9 - 0.1 * rank,
            "strength": 1.0,
        }
        for rank, module in enumerate(MODULES, start=1)
    ]
    write_table(home, "selected_modules", RUN, selected)


def make_run(
    root: Path, embedded: bool = False, flow: str = "experiment", dtype: str = "float32"
) -> Made:
    """A completed run of a tiny Mistral checkpoint, written as the flows write one."""
    home, checkpoint = Home.current(), root / "tiny"
    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    path = "demo" if embedded else str(checkpoint)
    files = {p.name: p.read_bytes() for p in checkpoint.iterdir()} if embedded else {}
    facts = {} if embedded else {"folder": str(checkpoint), "revision": None}
    data = random_data(n_questions=12)
    outcome = {
        "checkpoint": an_artifact("checkpoint", facts, files).model_dump(),
        "dataset": an_artifact(
            "dataset", {}, {references.DATASET: references.dataset_json(data)}
        ).model_dump(),
        "activations": {},
        "scores": [],
        "evaluations": [],
    }
    folder = run_folder(home, RUN)
    for fold, seed in ((0, 0), (0, 7), (1, 0)):
        a_spec(model, seed).save(folder / "specs" / "real" / f"fold-{fold}-seed-{seed}")
    a_spec(model, token_scope="last").save(folder / "specs" / "iti" / "fold-0-seed-0")
    changes = [f"model.path={path}", f"model.dtype={dtype}"]
    config = load_config(None, [*changes, "methods=[unsteered, real, iti, random]"])
    (folder / "config.yaml").write_text(commented_yaml(config))
    versions = {"real-steering": "0.1", "torch": "2", "transformers": "5"}
    record = {
        "stages": [],
        "warnings": ["labels are shuffled"],
        "versions": versions,
        "device": "cpu",
        "source": {"file": "/home/somebody/questions.jsonl", "questions": "12"},
        "checkpoint": facts,
        "outcome": outcome,
    }
    (folder / "run.json").write_text(json.dumps(record))
    row = {
        "run_id": RUN,
        "flow": flow,
        "started_at": now(),
        "finished_at": now(),
        "status": "completed",
        "model": "tiny",
        "model_id": "0",
        "behaviour": "demo_truth",
        "seed": 42,
        "config_digest": "sha256:def",
        "git_commit": "1234abcd",
        "mlflow_run_id": None,
    }
    write_run(home, row)
    write_tables(home)
    return Made(home, checkpoint)


@pytest.fixture
def made(home: Path, tmp_path: Path) -> Made:
    return make_run(tmp_path)


def test_a_checkpoint_is_whole_checked_and_says_what_it_is(made: Made, tmp_path: Path) -> None:
    to = tmp_path / "out" / "steered"
    exported = made.export(to, "checkpoint")
    assert set(exported.files) >= {
        "README.md",
        "config.json",
        "model.safetensors",
        "real_parity.json",
        "tokenizer.json",
        "chat_template.jinja",
    }
    assert exported.files == tuple(sorted(path.name for path in to.iterdir()))
    assert check_export(str(to)).verdict == "steered"
    measured = Parity.load(to).measured
    assert measured is not None and measured < 1e-4
    text = " ".join(exported.sentences)
    assert "declared as LlamaForCausalLM" in text and "steered as expected" in text
    exec(exported.snippet, space := {})  # noqa: S102
    assert type(space["model"]).__name__ == "LlamaForCausalLM"
    assert [path.name for path in to.parent.iterdir()] == ["steered"]


def test_the_printed_lines_steer_as_the_baked_checkpoint_does(made: Made, tmp_path: Path) -> None:
    made.export(tmp_path / "baked", "checkpoint")
    exported = made.export(tmp_path / "spec", "spec")
    assert set(exported.files) == {"README.md", "steering.json", "steering.safetensors"}
    model = AutoModelForCausalLM.from_pretrained(made.checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(made.checkpoint)
    space = {"model": model, "tokenizer": tokenizer}
    assert len(exported.snippet.splitlines()) == 3
    exec(exported.snippet.replace("Q: ...", "Q: w1 w2 ? A:"), space)  # noqa: S102
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    inputs = tokenizer("Q: w1 w2 ? A:", return_tensors="pt")
    assert torch.equal(space["output"], baked.generate(**inputs))  # type: ignore[arg-type]
    assert not torch.equal(baked.generate(**inputs), model.generate(**inputs))


def test_heads_are_exported_as_lofit_reads_them(made: Made, tmp_path: Path) -> None:
    exported = made.export(tmp_path / "heads", "lofit")
    assert exported.files == ("README.md", "heads.npy")
    assert np.load(tmp_path / "heads" / "heads.npy").tolist() == [[2, 3], [0, 1], [2, 0]]


def test_the_card_calls_the_behaviour_as_the_tables_do(made: Made, tmp_path: Path) -> None:
    folder = run_folder(made.home, RUN) / "specs" / "real" / "fold-0-seed-0"
    spec = SteeringSpec.load(folder)
    replace(spec, provenance={**spec.provenance, "behaviour": "refusal-away"}).save(folder)
    made.export(tmp_path / "heads", "lofit")
    card = (tmp_path / "heads" / "README.md").read_text()
    assert "- refusal-away\n" in card and "steered towards refusal-away\n" in card
    assert "| behaviour | refusal-away (demo_truth) |" in card


def test_the_card_says_how_it_was_made_what_it_does_and_what_it_costs(
    made: Made, tmp_path: Path
) -> None:
    made.export(tmp_path / "steered", "checkpoint")
    card = (tmp_path / "steered" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    given = yaml.safe_load(front)
    assert given["base_model"] == "tiny" and given["library_name"] == "transformers"
    assert {"activation-steering", "demo_truth"} <= set(given["tags"])
    spec = SteeringSpec.load(run_folder(made.home, RUN) / "specs" / "real" / "fold-0-seed-0")
    sigma = float(spec.edits[0].tensors["scale"][1])
    length = 4.0 * 0.9 * sigma
    for said in (
        "| 1 | 2 | 3 | 0.800 | 1.000 |",
        f"| 2 | 0 | 1 | 0.700 | 0.900 | {sigma:.4g} | {length:.4g} |",
        "| alpha | 4 standard deviations",
        "| MC1 | 0.400 | 0.650 | 0.700 ± 0.071 (n = 2) |",
        "| KL (nats/token) – side effect, lower is better | 0.000 | 0.040 | 0.040 ± 0.000 (",
        "| MC1 | +0.300 | [+0.210, +0.390] | 60 |",
        f"| run | {RUN} |",
        "| code | 1234abcd |",
        "the same weights as MistralForCausalLM",
        "AutoModelForCausalLM.from_pretrained",
        "real export --check",
        "From the run: labels are shuffled",
        "questions.jsonl",
    ):
        assert said in body, said
    assert "/home/somebody" not in card and str(tmp_path) not in card
    assert "{{" not in card and "{%" not in card


def ablating(model: torch.nn.Module, **changes: Any) -> SteeringSpec:
    """Half of what the heads have along their directions is taken away."""
    spec, project_out = a_spec(model), OPERATORS.made("project_out", {})
    edit = replace(spec.edits[0], operator=project_out, weights=torch.ones(3), **changes)
    return replace(spec, edits=(edit,), alpha=0.5)


def test_another_operator_is_baked_into_weights_and_the_card_says_so(
    made: Made, tmp_path: Path
) -> None:
    ablating(tiny_model()).save(run_folder(made.home, RUN) / "specs" / "real" / "fold-0-seed-0")
    exported = made.export(tmp_path / "steered", "checkpoint")
    assert (
        "MistralForCausalLM, in float32, steered by 2 weights and 0 biases" in exported.sentences[0]
    )
    assert check_export(str(tmp_path / "steered")).verdict == "steered"
    card = (tmp_path / "steered" / "README.md").read_text()
    for said in (
        "is done by 2 of its weights and 0 of its biases",
        "- x - s * (v . x) v, at strength 0.5 (share of the component that is removed), in layer 2",
        "| alpha | 0.5 share of the component that is removed |",
        "| hooks | exactly: ",
        "| bake | exactly: ",
        "| gguf | exactly: ",
        "| lofit | with a difference: a list of heads, without what is done to them |",
    ):
        assert said in card, said
    spec = made.export(tmp_path / "spec", "spec")
    assert spec.sentences[1].startswith("x - s * (v . x) v, at strength 0.5")


def test_an_adapter_is_checked_and_found_by_the_printed_lines(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    ablating(tiny_model()).save(run_folder(made.home, RUN) / "specs" / "real" / "fold-0-seed-0")
    exported = made.export(tmp_path / "adapter", "lora")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= set(
        exported.files
    )
    assert exported.sentences[0] == f"An adapter of rank 2 for 2 weights of {made.checkpoint}."
    assert check_export(str(tmp_path / "adapter")).verdict == "steered"
    exec(exported.snippet, space := {})  # noqa: S102
    made.export(tmp_path / "baked", "checkpoint")
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    inputs: Any = space["tokenizer"]("w1 w2 w30", return_tensors="pt")  # type: ignore[operator]
    found = space["model"](**inputs).logits  # type: ignore[operator]
    torch.testing.assert_close(found, baked(**inputs).logits)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "library_name: peft" in card and "This is a LoRA adapter for `tiny`" in card
    with pytest.raises(UserInputError, match="adds a constant, and LoRA changes weights"):
        made.export(tmp_path / "constant", "lora", fold=1)


def test_heads_become_a_control_vector_only_as_an_approximation_that_is_named(
    made: Made, tmp_path: Path
) -> None:
    with pytest.raises(UserInputError, match=r"\(head\).*--approximate adds it behind the block"):
        made.export(tmp_path / "vector", "control-vector")
    with pytest.raises(UserInputError, match="for --format control-vector, not for spec"):
        made.export(tmp_path / "vector", "spec", approximate=True)
    exported = made.export(tmp_path / "vector", "control-vector", approximate=True)
    assert exported.files == ("README.md", "control-vector.gguf")
    assert exported.sentences[0].startswith("Added to the output of 2 blocks")
    assert exported.sentences[1].startswith("An approximation: ")
    assert f"- {exported.sentences[1]}\n" in (tmp_path / "vector" / "README.md").read_text()


def test_without_peft_no_adapter_is_begun(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablating(tiny_model()).save(run_folder(made.home, RUN) / "specs" / "real" / "fold-0-seed-0")
    monkeypatch.setattr(steered_runs, "load_model", lambda *_: pytest.fail("it was loaded"))
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    with pytest.raises(UserInputError, match=r"peft.*not installed.*--format spec"):
        made.export(tmp_path / "adapter", "lora")
    assert not (tmp_path / "adapter").exists()


def test_what_cannot_be_baked_is_refused_before_a_model_is_loaded(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ablating(tiny_model(), keep_norm=True)
    spec.save(run_folder(made.home, RUN) / "specs" / "real" / "fold-0-seed-0")
    monkeypatch.setattr(steered_runs, "load_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(UserInputError, match="keep_norm brings.*--format spec"):
        made.export(tmp_path / "steered", "checkpoint")
    made.export(tmp_path / "spec", "spec")
    card = (tmp_path / "spec" / "README.md").read_text()
    assert "| bake | refused: keep_norm brings" in card and "| hooks | exactly" in card


def test_a_bfloat16_export_says_what_rounding_costs(home: Path, tmp_path: Path) -> None:
    made = make_run(tmp_path, dtype="bfloat16")
    exported = made.export(tmp_path / "steered", "checkpoint")
    weights = load_file(tmp_path / "steered" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    parity = Parity.load(tmp_path / "steered")
    assert parity.measured is not None and 1e-4 < parity.measured <= parity.tolerance / 2 + 0.1
    card = (tmp_path / "steered" / "README.md").read_text()
    assert "rounded to bfloat16" in card and f"{parity.measured:.2g} nats" in card
    assert "in bfloat16, steered by 2 biases" in exported.sentences[0]
    assert check_export(str(tmp_path / "steered")).ok


def test_who_serves_an_export_may_be_another_user(made: Made, tmp_path: Path) -> None:
    for format in ("checkpoint", "spec"):
        made.export(tmp_path / format, format)
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / format).iterdir()}
        assert modes == {0o644}


def test_fold_and_seed_choose_the_spec(made: Made, tmp_path: Path) -> None:
    made.export(tmp_path / "a", seed=7)
    made.export(tmp_path / "b", fold=1)
    model = tiny_model()
    for name, seed in (("a", 7), ("b", 0)):
        found = load_file(tmp_path / name / "steering.safetensors")["0.direction"]
        assert torch.equal(found, a_spec(model, seed).edits[0].tensors["direction"])


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ({"method": "reel"}, "no method 'reel'; those that steer: iti, real"),
        ({"method": "unsteered"}, "'unsteered' steers nothing"),
        ({"method": "random"}, "'random' steers nothing in this run.*cap on KL"),
        (
            {"fold": 2},
            "no steering spec for fold 2; there are: fold 0 seed 0, fold 0 seed 7, fold 1",
        ),
        ({"seed": 3}, "no steering spec for fold 0 and seed 3"),
        ({"method": "iti", "format": "checkpoint"}, "token scope 'last'.*--format spec"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    made: Made, tmp_path: Path, which: dict[str, Any], message: str
) -> None:
    to = tmp_path / "out" / "steered"
    with pytest.raises(UserInputError, match=message):
        made.export(to, **which)
    assert not to.parent.exists() or not list(to.parent.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserInputError, match="not empty"):
        made.export(tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    same = (tmp_path / "empty").stat().st_ino
    assert "steering.json" in made.export(tmp_path / "empty").files
    assert (tmp_path / "empty").stat().st_ino == same
    with pytest.raises(UserInputError, match="--to DIR"):
        export_run(made.home, RUN, None, None, "spec")


def test_runs_without_results_and_of_other_flows_are_refused(
    made: Made, tmp_path: Path, home: Path
) -> None:
    with pytest.raises(StorageError, match="no run 'nope'"):
        made.export(tmp_path / "out", run_id="nope")
    (run_folder(made.home, RUN) / "run.json").unlink()
    with pytest.raises(StorageError, match="has no results to export"):
        made.export(tmp_path / "out")
    make_run(tmp_path, flow="transfer")
    with pytest.raises(UserInputError, match="of the flow 'transfer'"):
        made.export(tmp_path / "out")


def test_a_checkpoint_that_changed_since_the_run_is_refused(made: Made, tmp_path: Path) -> None:
    tiny_model(seed=3).save_pretrained(made.checkpoint)
    with pytest.raises(UserInputError, match="another one"):
        made.export(tmp_path / "out", "checkpoint")
